from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from workbench.model import (
    PRESETS,
    cache_bytes,
    flops_per_token,
    n_parameter,
    new_network,
    parameters_by_part,
    preset,
)

SMALL = {"n_layer": 2, "d_model": 32, "vocab_size": 48}
CONFIGS = {
    **{name: replace(config, vocab_size=64) for name, config in PRESETS.items()},
    "untied": preset("demo", tie_embeddings=False, output_bias=True, **SMALL),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_parts_sum_to_all_parameters(name):
    assert sum(parameters_by_part(CONFIGS[name]).values()) == n_parameter(CONFIGS[name])


@pytest.mark.parametrize("name", ["demo", "qwen2", "qwen3", "untied"])
def test_parts_are_those_of_the_matrices(name):
    network = new_network(CONFIGS[name], seed=0)
    wanted = dict.fromkeys(["embedding", "head", "attention", "feedforward"], 0)
    attention = ("query", "key", "value", "attention_out")
    for matrix in network.matrices():
        part = "feedforward" if matrix.role.startswith("feedforward") else matrix.role
        wanted["attention" if part in attention else part] += matrix.weight.numel()
    biases = [p.numel() for n, p in network.named_parameters() if n.endswith(".bias")]
    wanted["attention"] += sum(biases)
    wanted["head"] += CONFIGS[name].output_bias * CONFIGS[name].vocab_size
    found = parameters_by_part(CONFIGS[name])
    rest = sum(p.numel() for p in network.parameters()) - sum(wanted.values())
    assert found == wanted | {"control": rest}


def test_cache_is_as_large_as_that_of_transformers():
    import transformers

    config = preset("llama", vocab_size=32)
    theirs = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=32,
            hidden_size=config.d_model,
            intermediate_size=config.d_feedforward,
            num_hidden_layers=config.n_layer,
            num_attention_heads=config.n_head,
            num_key_value_heads=config.n_kv_head,
        )
    )
    with torch.inference_mode():
        kept = theirs(torch.zeros(1, 11, dtype=torch.long), use_cache=True).past_key_values
    size = sum(layer.keys.nbytes + layer.values.nbytes for layer in kept.layers)
    assert cache_bytes(config, context=11, bytes_per_value=4) == size


@pytest.mark.parametrize("shape", [{}, {"tie_embeddings": False}, {"head_width": 24, "n_head": 2}])
def test_flops_are_those_that_torch_counts(shape):
    config = preset("demo", **{"n_head": 2, "n_kv_head": 1, **SMALL, **shape})
    network, ids = new_network(config, seed=0), torch.zeros(3, 20, dtype=torch.long)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        network(ids).sum().backward()
    whole = flops_per_token(config, sequence_length=20, is_causal=False)
    assert counter.get_total_flops() == whole * ids.numel()
    halved = flops_per_token(config, sequence_length=20)
    assert whole - halved == 6 * config.n_layer * config.d_query * 20
