"""Configuration: derived sizes, what does not fit, and names that are nearly right."""

import json
from dataclasses import FrozenInstanceError, fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.folder import InputError
from workbench.model import PRESETS, ModelConfig, ValueResidualConfig, from_json, preset, to_json

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
    ],
)
def test_sizes_that_do_not_fit_are_named(overrides, message):
    with pytest.raises(InputError, match=message):
        preset("demo", **{**SHAPES, **overrides})


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
    mechanism=st.none()
    | st.builds(
        ValueResidualConfig,
        form=st.sampled_from(["add", "blend"]),
        gate=st.sampled_from(["linear", "sigmoid"]),
        source=st.sampled_from(["first", "previous"]),
        init=st.floats(-2, 2),
    ),
)
def test_json_round_trip(n_layer, groups, tied, base, mechanism):
    n_kv_head, share, half = groups
    config = ModelConfig(
        n_layer=n_layer,
        n_head=n_kv_head * share,
        n_kv_head=n_kv_head,
        d_model=n_kv_head * share * 2 * half,
        tie_embeddings=tied,
        rope_base=base,
        value_residual=mechanism,
    )
    text = json.dumps(to_json(config), allow_nan=False)
    assert from_json(json.loads(text)) == config
