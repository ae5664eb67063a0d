"""Configuration: derived sizes, what does not fit, and names that are nearly right."""

import json
from dataclasses import FrozenInstanceError, fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.folder import InputError
from workbench.model import (
    PRESETS,
    ModelConfig,
    RopeScaling,
    ValueResidualConfig,
    from_json,
    preset,
    to_json,
)

SHAPES = {"n_head": 4, "n_kv_head": 2, "d_model": 16, "vocab_size": 32}


def test_the_promised_fields_are_there():
    promised = (
        "n_layer n_head n_kv_head d_model vocab_size feedforward_multiple tie_embeddings "
        "rope_base softcap output_bias value_residual"
    )
    assert set(promised.split()) <= {field.name for field in fields(ModelConfig)}


def test_baseline_is_the_official_table():
    assert to_json(PRESETS["baseline"]) == {
        "n_layer": 9,
        "n_head": 8,
        "n_kv_head": 4,
        "d_model": 512,
        "vocab_size": 1024,
        "feedforward_multiple": 2,
        "tie_embeddings": True,
        "rope_base": 10000.0,
        "softcap": 30.0,
        "output_bias": False,
        "value_residual": None,
        "head_width": None,
        "feedforward_width": None,
        "feedforward": "relu2",
        "norm_eps": None,
        "query_key": "gained",
        "attention_bias": False,
        "stream": "mixed",
        "rope_direction": -1,
        "rope_scaling": None,
        "recurrence": None,
    }
    assert PRESETS["demo"].value_residual == ValueResidualConfig()


@pytest.mark.parametrize(
    ("n_layer", "n_encoder", "n_skip"), [(1, 0, 0), (2, 1, 1), (3, 1, 1), (8, 4, 4), (9, 4, 4)]
)
def test_derived_sizes(n_layer, n_encoder, n_skip):
    config = ModelConfig(n_layer=n_layer, n_head=4, n_kv_head=2, d_model=24, feedforward_multiple=3)
    assert (config.n_encoder, config.n_skip) == (n_encoder, n_skip)
    assert (config.d_head, config.d_key_value, config.d_feedforward) == (6, 12, 72)


def test_a_configuration_does_not_change():
    with pytest.raises(FrozenInstanceError):
        ModelConfig().n_layer = 3


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"n_layer": 0}, "n_layer"),
        ({"vocab_size": -1}, "vocab_size"),
        ({"n_layer": 2.0}, "n_layer"),
        ({"d_model": "64"}, "d_model"),
        ({"feedforward_multiple": 0}, "feedforward_multiple"),
        ({"feedforward_multiple": 1.5}, "feedforward_multiple"),
        ({"d_model": 18}, "n_head 4 does not divide d_model 18"),
        ({"n_kv_head": 3}, "n_kv_head 3 does not divide n_head 4"),
        ({"d_model": 12}, "d_head 3 must be even"),
        ({"softcap": 0.0}, "softcap"),
        ({"softcap": float("nan")}, "softcap"),
        ({"softcap": float("inf")}, "softcap"),
        ({"rope_base": -1.0}, "rope_base"),
        ({"head_width": 7}, "d_head 7 must be even"),
        ({"head_width": 0}, "head_width"),
        ({"feedforward_width": 2.5}, "feedforward_width"),
        ({"norm_eps": 0.0}, "norm_eps"),
        ({"norm_eps": "1e-6"}, "norm_eps"),
        ({"feedforward": "gelu"}, "feedforward must be one of"),
        ({"stream": "mix"}, "stream must be one of"),
        ({"rope_direction": 0}, "rope_direction must be one of"),
        ({"query_key": "learned"}, "query_key learned needs norm_eps"),
    ],
)
def test_sizes_that_do_not_fit_are_named(overrides, message):
    with pytest.raises(InputError, match=message):
        preset("demo", **{**SHAPES, **overrides})


def test_explicit_widths_take_the_place_of_derived_ones():
    config = preset("demo", d_model=18, head_width=6, feedforward_width=50)
    assert (config.d_head, config.d_query, config.d_key_value) == (6, 24, 12)
    assert config.d_feedforward == 50
    plain = preset("demo", stream="plain")
    assert plain.n_skip == 0


def test_the_families_differ_in_few_fields():
    llama, qwen2, qwen3 = (PRESETS[name] for name in ("llama", "qwen2", "qwen3"))
    for each in (llama, qwen2, qwen3):
        assert (each.feedforward, each.stream, each.rope_direction) == ("swiglu", "plain", 1)
        assert each.softcap is None and each.norm_eps
    assert (llama.attention_bias, qwen2.attention_bias, qwen3.attention_bias) == (0, 1, 0)
    assert (llama.query_key, qwen2.query_key, qwen3.query_key) == ("plain", "plain", "learned")


@pytest.mark.parametrize(
    "wrong",
    [
        {"type": "yarn", "factor": 2.0},
        {"type": "linear"},
        {"type": "linear", "factor": 0.5},
        {"type": "llama3", "factor": 8.0, "low_frequency_factor": 4.0},
        "linear",
    ],
)
def test_a_wrong_rope_scaling_lists_its_fields(wrong):
    with pytest.raises(InputError, match="type, factor"):
        preset("llama", rope_scaling=wrong)


def test_unknown_names_name_the_nearest():
    with pytest.raises(InputError, match="Nearest: baseline"):
        preset("basline")
    with pytest.raises(InputError, match="Nearest: n_layer"):
        preset("demo", n_layers=3)


@pytest.mark.parametrize(
    ("given_value", "expected"),
    [
        (None, None),
        (False, None),
        (True, ValueResidualConfig()),
        ({}, ValueResidualConfig()),
        ({"form": "blend", "init": 0.25}, ValueResidualConfig(form="blend", init=0.25)),
        (ValueResidualConfig(gate="sigmoid"), ValueResidualConfig(gate="sigmoid")),
    ],
)
def test_value_residual_from_plain_values(given_value, expected):
    assert preset("demo", value_residual=given_value).value_residual == expected


@pytest.mark.parametrize("wrong", [{"shape": "add"}, {"form": "mix"}, 3, "add", {"gate": "tanh"}])
def test_a_wrong_value_residual_lists_its_fields(wrong):
    with pytest.raises(InputError, match="form, gate, source, init"):
        preset("demo", value_residual=wrong)


@given(
    n_layer=st.integers(1, 5),
    groups=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)),
    tied=st.booleans(),
    base=st.floats(1, 1e6),
    cap=st.none() | st.floats(1, 50),
    scaling=st.none() | st.builds(RopeScaling, type=st.just("llama3"), factor=st.floats(1, 9)),
    mechanism=st.none()
    | st.builds(
        ValueResidualConfig,
        form=st.sampled_from(["add", "blend"]),
        gate=st.sampled_from(["linear", "sigmoid"]),
        source=st.sampled_from(["first", "previous"]),
        init=st.floats(-2, 2),
    ),
)
def test_json_round_trip(n_layer, groups, tied, base, cap, scaling, mechanism):
    n_kv_head, share, half = groups
    config = ModelConfig(
        n_layer=n_layer,
        n_head=n_kv_head * share,
        n_kv_head=n_kv_head,
        d_model=n_kv_head * share * 2 * half,
        tie_embeddings=tied,
        rope_base=base,
        value_residual=mechanism,
        softcap=cap,
        rope_scaling=scaling,
    )
    text = json.dumps(to_json(config), allow_nan=False)
    assert from_json(json.loads(text)) == config


@pytest.mark.parametrize(
    "fields", [{"n_layer": True}, {"rope_base": 10**400}, {"norm_eps": 10**400, "softcap": None}]
)
def test_numbers_that_are_none_are_refused(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        ModelConfig(**fields)
