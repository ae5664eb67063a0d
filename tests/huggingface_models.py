"""Toy checkpoints as Hugging Face folders: made by transformers, or by us and then broken."""

import json
import warnings

import torch
from safetensors.torch import load_file, save_file

from workbench.foreign import write_huggingface
from workbench.model import new_network, preset

SIZES = {
    **{"vocab_size": 97, "hidden_size": 64, "intermediate_size": 80, "num_hidden_layers": 2},
    **{"num_attention_heads": 8, "num_key_value_heads": 2, "max_position_embeddings": 128},
}
SHAPE = {
    **{"vocab_size": 37, "d_model": 16, "n_layer": 3, "n_head": 4, "n_kv_head": 2},
    **{"feedforward_width": 24},
}


def peer(transformers, family, folder, *, shard=None, **fields):
    """Let transformers make a model with every weight random, and save it; return it."""
    kind = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3"}[family]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = getattr(transformers, f"{kind}Config")(**{**SIZES, **fields})
        model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
        with torch.no_grad():
            generator = torch.Generator().manual_seed(1)
            for name, parameter in model.named_parameters():
                parameter.normal_(float("norm" in name), 0.2, generator=generator)
        model.save_pretrained(folder, **({"max_shard_size": shard} if shard else {}))
    return model


def ours(folder, family="llama", **fields):
    """Write a network of a family with every weight random; return it."""
    network = new_network(preset(family, **{**SHAPE, **fields}), seed=0).eval()
    with torch.no_grad():
        generator = torch.Generator().manual_seed(2)
        for parameter in network.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
    write_huggingface(network, folder, sequence_length=64)
    return network


def change(folder, *, without=(), **values):
    """Edit config.json."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) | values
    path.write_text(json.dumps({k: v for k, v in config.items() if k not in without}))


def rewrite(folder, edit):
    """Edit the tensors: `edit` receives a dict by name and changes it."""
    path = folder / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    edit(tensors)
    save_file(tensors, path)


def shard(folder, n=3):
    """Split the single file into several with an index; return the index."""
    path = folder / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    names = sorted(tensors)
    mapped = {}
    for at in range(n):
        some, file = names[at::n], f"model-{at + 1:05d}-of-{n:05d}.safetensors"
        save_file({name: tensors[name] for name in some}, folder / file)
        mapped |= dict.fromkeys(some, file)
    path.unlink()
    size = sum(t.numel() * t.element_size() for t in tensors.values())
    write_index(folder, index := {"metadata": {"total_size": size}, "weight_map": mapped})
    return index


def write_index(folder, index):
    """Write the index of a sharded folder."""
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
