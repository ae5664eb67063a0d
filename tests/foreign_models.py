"""Small causal language models of transformers with random weights, to be adapted in tests."""

import torch
import transformers

KINDS = ("gpt2", "llama", "gpt_neox", "gemma2")
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 257}
FIELDS = {
    "gpt2": {"n_positions": 64},  # fused queries, keys and values, matrices kept the other way
    "llama": {"intermediate_size": 24, "num_key_value_heads": 2},
    "gpt_neox": {"intermediate_size": 24, "hidden_act": "gelu"},  # parallel residual
    "gemma2": {  # norms after the writes, softcap, heads wider than the stream
        "intermediate_size": 24,
        "num_key_value_heads": 2,
        "head_dim": 6,
        "final_logit_softcapping": 3.0,
    },
}


def foreign_model(kind: str, **fields: object) -> torch.nn.Module:
    """Make a model of two blocks in evaluation mode; every parameter is random, norms too."""
    given = {**SIZES, **FIELDS.get(kind, {}), **fields}
    ends = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
    config = transformers.AutoConfig.for_model(kind, **given, **ends)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                away = 1.0 if parameter.ndim == 1 and name.endswith("norm.weight") else 0.0
                parameter.normal_(away, 0.2)
    return model.eval()
