"""Published configurations and the parameter counts that their authors report."""

import pytest

from workbench.foreign.huggingface_config import FIELDS, claims, to_huggingface
from workbench.model import ModelConfig, n_parameter, preset

QWEN = {  # as published for Qwen2.5-0.5B
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151643,
    "hidden_act": "silu",
    "hidden_size": 896,
    "initializer_range": 0.02,
    "intermediate_size": 4864,
    "max_position_embeddings": 32768,
    "max_window_layers": 24,
    "model_type": "qwen2",
    "num_attention_heads": 14,
    "num_hidden_layers": 24,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_mrope": False,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
NAMES = ["model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.q_proj.bias"]
SIZES = {  # hidden, heads, key heads, layers, feed-forward, vocabulary, tied: parameters
    "0.5B": ((896, 14, 2, 24, 4864, 151936, True), 494_032_768),
    "1.5B": ((1536, 12, 2, 28, 8960, 151936, True), 1_543_714_304),
    "7B": ((3584, 28, 4, 28, 18944, 152064, False), 7_615_616_512),
}


def test_the_preset_with_the_published_sizes_is_the_published_model():
    found = claims(QWEN, NAMES, where="config.json")
    assert not found.problems and found.family == "qwen2"
    assert found.model_config() == preset(
        "qwen2",
        **{"n_layer": 24, "n_head": 14, "n_kv_head": 2, "d_model": 896},
        **{"vocab_size": 151936, "feedforward_width": 4864},
    )
    stated = {FIELDS[key] for key in QWEN.keys() & FIELDS.keys()}
    assert {f for f, origin in found.sources.items() if origin == "config.json"} == stated
    assert found.sources["head_width"] == "Qwen2 default"
    assert found.sources["attention_bias"] == "Qwen2 architecture"


@pytest.mark.parametrize("size", SIZES)
def test_other_sizes(size):
    values, parameters = SIZES[size]
    keys = ("hidden_size", "num_attention_heads", "num_key_value_heads", "num_hidden_layers")
    keys += ("intermediate_size", "vocab_size", "tie_word_embeddings")
    config = claims(
        QWEN | dict(zip(keys, values, strict=True)), NAMES, where="config.json"
    ).model_config()
    assert n_parameter(config) == parameters
    assert config.tie_embeddings == values[-1]


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_what_is_written_is_read_back(family):
    scaling = {"type": "llama3", "factor": 8.0, "original_context": 64}
    config = preset(family, head_width=20, rope_scaling=scaling, tie_embeddings=False)
    names = {
        "llama": NAMES[:1],
        "qwen2": NAMES,
        "qwen3": ["model.layers.0.self_attn.q_norm.weight"],
    }[family]
    found = claims(to_huggingface(config), names, where="config.json")
    assert not found.problems and found.model_config() == config
    assert isinstance(found.model_config(), ModelConfig)
