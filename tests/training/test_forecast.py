import resource

import pytest
import torch

from workbench.model import new_network, preset
from workbench.text.tokenizer import byte_tokenizer
from workbench.training import (
    PEAKS,
    next_token_loss,
    optimizers,
    pass_shape,
    train_config,
    training_bytes,
)

PASS = {"device": "cpu", "sequence_length": 64, "tokens_per_pass": 512, "micro_batches": 1}


def schedule(**settings):
    return train_config(optimizer={}, **{**PASS, "tokens_per_step": 1024, **settings})


def forecast(config, training, **settings):
    return training_bytes(config, training, tokenizer=byte_tokenizer(), **settings)


@pytest.mark.parametrize(
    ("tokens", "wanted"), [(64, (1, 1)), (512, (8, 1)), (1024, (8, 2)), (1088, (8, 3))]
)
def test_pass_shape(tokens, wanted):
    assert pass_shape(schedule(tokens_per_step=tokens)) == wanted


@pytest.fixture(scope="module", params=["demo", "llama"])
def subject(request):
    config = preset(request.param, n_layer=2, vocab_size=96)
    return config, forecast(config, schedule())


def test_state_is_that_of_real_optimizers(subject):
    config, found = subject
    network = new_network(config, seed=0)
    ids = torch.zeros(1, 8, dtype=torch.long)
    next_token_loss(network, ids, ids).backward()
    every = optimizers(network, schedule().optimizer)
    for each in every:
        each.step()
    states = [state for each in every for state in each.state.values()]
    tensors = [v for state in states for v in state.values() if isinstance(v, torch.Tensor)]
    grads = [p.grad for p in network.parameters()]
    buffers = sum(each.nbytes for each in network.buffers())
    assert found["gradients"] == sum(each.nbytes for each in grads)
    assert found["optimizer"] == pytest.approx(sum(each.nbytes for each in tensors), rel=0.01)
    assert found["weights"] == found["gradients"] + buffers


def test_activations_are_those_that_autograd_keeps(subject):
    config, found = subject
    network = new_network(config, seed=0)
    own = {each.untyped_storage().data_ptr() for each in network.parameters()}
    own |= {each.untyped_storage().data_ptr() for each in network.buffers()}
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor  # held, so that no address comes twice
        return tensor

    ids = torch.zeros(8, 64, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        next_token_loss(network, ids, ids)
    wanted = sum(each.untyped_storage().nbytes() for at, each in kept.items() if at not in own)
    assert found["activations"] + found["logits"] == pytest.approx(wanted, rel=0.02)


def test_peak_is_all_that_is_there_and_temporaries_of_the_loss(subject):
    config, found = subject
    parts = sum(size for part, size in found.items() if part not in PEAKS)
    logits = 512 * config.vocab_size * 4
    assert parts <= found["backward_peak"] <= parts + 4 * logits + 2**20
    assert found["update_peak"] >= found["weights"] + found["gradients"] + found["optimizer"]


def test_pass_of_twice_the_rows_keeps_twice_as_much(subject):
    config, found = subject
    twice = forecast(config, schedule(tokens_per_pass=1024, tokens_per_step=2048))
    for part in ("activations", "logits"):
        assert twice[part] == pytest.approx(2 * found[part], rel=0.01)
    assert twice["weights"] == found["weights"]


def test_single_pass_has_no_earlier_gradients(subject):
    config, found = subject
    single = forecast(config, schedule(tokens_per_step=512))
    # Its own gradients come while activations go, so it may peak later than at the loss.
    assert 0 < found["backward_peak"] - single["backward_peak"] <= found["gradients"]


def test_average_is_one_more_copy(subject):
    config, found = subject
    kept = forecast(config, schedule(average={"kind": "ema"}))
    assert kept["average"] == found["gradients"]
    assert kept["backward_peak"] == found["backward_peak"] + kept["average"]
    assert found["average"] == 0


def test_heads_for_later_tokens_are_weights_too(subject):
    config, found = subject
    more = forecast(config, schedule(objective={"future_tokens": 2}))
    assert more["weights"] - found["weights"] == 2 * 4 * config.d_model**2
    assert more["logits"] > 2 * found["logits"]


def test_objective_that_is_a_plain_function(subject):
    config, found = subject
    plain = forecast(config, schedule(), objective=next_token_loss)
    assert plain["activations"] == found["activations"]


def test_model_far_too_large_for_this_machine_is_not_made():
    config = preset("llama", n_layer=2, d_model=32768, n_head=64, n_kv_head=8, vocab_size=65536)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = forecast(config, schedule())
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    assert found["weights"] > 15e9
    assert grown < 500e6


def test_bfloat16_keeps_less(subject):
    config, found = subject
    half = forecast(config, schedule(dtype="bfloat16"))
    assert half["activations"] < 0.9 * found["activations"]
    assert half["optimizer"] == found["optimizer"]


def test_rounding_that_comes_late_keeps_another_copy_of_the_matrices():
    config = preset("demo", n_layer=2, vocab_size=96)
    late = schedule(switches=[{"at": 0.5, "quantize_bits": 6}])
    plain, rounded = forecast(config, schedule()), forecast(config, late)
    network = new_network(config, seed=0)
    size = sum(matrix.weight.nbytes for matrix in network.matrices())
    assert 0.8 * size < rounded["backward_peak"] - plain["backward_peak"] < 3 * size
    assert rounded["weights"] == plain["weights"]
