"""Weights in and out: whole round trips, damaged and hostile files, mismatches listed at once."""

import os
import pickle

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from workbench.folder import InputError, create_run
from workbench.model import (
    config_from_state,
    load_model,
    load_state,
    new_network,
    preset,
    read_state,
    save_model,
    save_state,
    starting_point,
    state,
)


def copied(network):
    return {name: tensor.clone() for name, tensor in state(network).items()}


def same(some, others):
    return set(some) == set(others) and all(torch.equal(some[name], others[name]) for name in some)


def test_round_trip(tmp_path, tiny_network):
    save_model(tiny_network, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "model.safetensors"]
    again = load_model(tmp_path)
    assert again.config == tiny_network.config and not again.training
    assert same(state(again), state(tiny_network))
    ids = torch.arange(8)[None]
    with torch.no_grad():
        assert torch.equal(again(ids), tiny_network(ids))


def test_other_weights_of_the_same_model(tmp_path, tiny_network):
    save_model(tiny_network, tmp_path)
    other = new_network(tiny_network.config, seed=9)
    save_state(other, tmp_path / "checkpoints" / "step-000000.safetensors")
    loaded = load_model(tmp_path, weights=tmp_path / "checkpoints" / "step-000000.safetensors")
    assert same(state(loaded), state(other))


def test_a_tied_head_is_stored_once(tmp_path, tiny_network):
    save_state(tiny_network, tmp_path / "a.safetensors")
    found = load_file(tmp_path / "a.safetensors")
    assert "lm_head.weight" not in found and set(found) == set(state(tiny_network))


def test_a_pt_of_plain_tensors_loads(tmp_path, tiny_network):
    torch.save(tiny_network.state_dict(), tmp_path / "a.pt")
    assert same(read_state(tmp_path / "a.pt"), state(tiny_network))


class Planted:
    """What a hostile pickle does: name a function to call on loading."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("form", ["torch", "plain pickle", "renamed"])
def test_pickled_code_is_refused_and_never_run(tmp_path, form):
    witness = tmp_path / "executed"
    path = tmp_path / ("a.safetensors" if form == "renamed" else "a.pt")
    if form == "plain pickle":
        path.write_bytes(pickle.dumps({"tok_emb.weight": Planted(witness)}))
    else:
        torch.save({"x": torch.zeros(2), "y": Planted(witness)}, path)
    with pytest.raises(InputError, match="plain tensors") as caught:
        read_state(path)
    assert caught.value.where == str(path)
    assert not witness.exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_truncated_files_are_named(tmp_path, tiny_network, suffix):
    path = tmp_path / f"a{suffix}"
    if suffix == ".pt":
        torch.save(tiny_network.state_dict(), path)
    else:
        save_state(tiny_network, path)
    whole = path.read_bytes()
    for size in (0, 1, 7, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError) as caught:
            read_state(path)
        assert caught.value.where == str(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=64) | st.binary(max_size=40).map(lambda b: b"\x80\x02" + b + b".")
)
def test_arbitrary_bytes_are_refused(tmp_path, content):
    for suffix in (".safetensors", ".pt"):
        path = tmp_path / f"a{suffix}"
        path.write_bytes(content)
        with pytest.raises(InputError):
            read_state(path)


@pytest.mark.parametrize("value", [[torch.zeros(1)], {"a": {"b": torch.zeros(1)}}, {"a": 1.5}])
def test_what_is_not_a_state_dict_is_refused(tmp_path, value):
    torch.save(value, tmp_path / "a.pt")
    with pytest.raises(InputError, match="dict of tensors"):
        read_state(tmp_path / "a.pt")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="no file"):
        read_state(tmp_path / "none.safetensors")
    with pytest.raises(InputError, match="no file"):
        load_model(tmp_path)


def test_all_mismatches_are_listed_and_nothing_is_copied(tiny_network):
    before = copied(tiny_network)
    wrong = {name: tensor + 1 for name, tensor in before.items()}
    del wrong["skip_weights"]
    wrong["lm_bias"] = torch.zeros(257)
    wrong["blocks.1.attn.q_gain"] = torch.zeros(3)
    with pytest.raises(InputError) as caught:
        load_state(tiny_network, wrong)
    found = caught.value.found
    assert "missing skip_weights" in found and "unexpected lm_bias" in found
    assert "blocks.1.attn.q_gain is (3,), not (4,)" in found
    assert same(state(tiny_network), before)


def test_loading_copies_and_converts(tiny_network):
    given_tensors = {name: t.to(torch.bfloat16) for name, t in copied(tiny_network).items()}
    load_state(tiny_network, given_tensors)
    found = state(tiny_network)
    assert all(t.dtype == torch.float32 for t in found.values())
    assert same(found, {name: t.float() for name, t in given_tensors.items()})
    given_tensors["skip_weights"].zero_()
    assert found["skip_weights"].any(), "the model holds its own copy"


@settings(max_examples=30)
@given(
    n_layer=st.integers(1, 4),
    heads=st.sampled_from([(1, 1), (2, 1), (2, 2), (4, 2), (6, 3)]),
    d_half=st.integers(1, 3),
    multiple=st.integers(1, 4),
    vocab_size=st.integers(1, 40),
    tied=st.booleans(),
    bias=st.booleans(),
)
def test_every_shape_field_is_recovered(n_layer, heads, d_half, multiple, vocab_size, tied, bias):
    config = preset(
        "baseline",
        n_layer=n_layer,
        n_head=heads[0],
        n_kv_head=heads[1],
        d_model=heads[0] * 2 * d_half,
        feedforward_multiple=multiple,
        vocab_size=vocab_size,
        tie_embeddings=tied,
        output_bias=bias,
        softcap=15.0,
    )
    tensors = state(new_network(config, seed=0))
    assert config_from_state(tensors, softcap=15.0) == config
    assert config_from_state(tensors).softcap == 30.0, "no shape tells the cap"


def test_a_value_residual_is_stated_by_the_caller(tiny_network):
    tensors = state(tiny_network)
    assert config_from_state(tensors, value_residual=True) == tiny_network.config
    network = new_network(config_from_state(tensors), seed=0)
    with pytest.raises(InputError, match=r"unexpected value_residual\.alpha"):
        load_state(network, tensors)


def test_tensors_of_another_kind_of_network_are_named():
    with pytest.raises(InputError, match=r"tok_emb\.weight"):
        config_from_state({"wte.weight": torch.zeros(4, 4)})


def test_starting_points(tmp_path, monkeypatch, tiny_network):
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path))
    config = tiny_network.config
    save_model(tiny_network, create_run("origin").path)
    save_state(tiny_network, tmp_path / "weights.safetensors")
    fresh = starting_point(config, seed=4)
    assert same(state(fresh), state(new_network(config, seed=4)))
    for origin in ({"parent": "origin"}, {"initial_state": str(tmp_path / "weights.safetensors")}):
        assert same(state(starting_point(config, seed=4, **origin)), state(tiny_network))
    with pytest.raises(InputError, match="one origin"):
        starting_point(config, seed=4, parent="origin", initial_state="weights")
    with pytest.raises(InputError, match="none of that name"):
        starting_point(config, seed=4, parent="orphan")
    with pytest.raises(InputError, match=r"is \(257, 16\), not \(300, 16\)"):
        starting_point(
            preset("demo", n_layer=2, d_model=16, vocab_size=300), seed=4, parent="origin"
        )


def test_tensors_of_one_memory_are_taken_apart(tmp_path):
    shared = torch.arange(6.0)
    torch.save({"a": shared[:3], "b": shared[3:], "c": torch.ones(2)}, tmp_path / "w.pt")
    found = read_state(tmp_path / "w.pt")
    found["a"].fill_(9.0)
    assert found["b"].tolist() == [3.0, 4.0, 5.0] and found["a"].tolist() == [9.0] * 3
    places = {each.untyped_storage().data_ptr() for each in found.values()}
    assert len(places) == 3
