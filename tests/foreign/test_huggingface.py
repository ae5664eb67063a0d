"""Checkpoints in and out: transformers' own forward pass is the reference."""

import hashlib
import subprocess
import sys
import warnings
from dataclasses import fields

import pytest
import tokenizers
import torch
from huggingface_models import SHAPE, change, ours, peer, rewrite, shard
from safetensors.torch import load_file

from workbench.folder import InputError
from workbench.foreign import ArchMismatch, read_huggingface, write_huggingface
from workbench.model import new_network, preset, save_model, state
from workbench.text import byte_tokenizer, load_tokenizer

SCALINGS = {
    "linear": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0},
    "llama3": {
        **{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
        **{"original_max_position_embeddings": 32, "rope_theta": 500.0},
    },
}
TOYS = {
    "llama tied": ("llama", {"tie_word_embeddings": True}),
    "llama untied, sharded": ("llama", {"tie_word_embeddings": False, "shard": "60KB"}),
    "llama linear": ("llama", {"rope_parameters": SCALINGS["linear"]}),
    "llama llama3": ("llama", {"rope_parameters": SCALINGS["llama3"]}),
    "qwen2 tied, sharded": (
        "qwen2",
        {"tie_word_embeddings": True, "rope_theta": 1e6, "shard": "60KB"},
    ),
    "qwen2 ratio 7": (
        "qwen2",
        {"num_attention_heads": 14, "num_key_value_heads": 2, "hidden_size": 112},
    ),
    "qwen2 ratio 8": ("qwen2", {"num_key_value_heads": 1}),
    "qwen2 ratio 1": ("qwen2", {"num_key_value_heads": 8}),
    "qwen3 tied": ("qwen3", {"head_dim": 24, "tie_word_embeddings": True}),
    "qwen3 untied": ("qwen3", {"head_dim": 8, "rms_norm_eps": 1e-3}),
}


def logits(model, ids):
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = model(ids)
    return getattr(found, "logits", found)


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("toy", TOYS)
def test_logits_of_transformers(toy, tmp_path, transformers):
    family, fields = TOYS[toy]
    model = peer(transformers, family, tmp_path, **fields)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == ("shard" in fields)
    foreign = read_huggingface(tmp_path)
    ids = torch.randint(0, 97, (2, 48), generator=torch.Generator().manual_seed(0))
    expected, found = logits(model, ids), logits(foreign.network, ids)
    assert float(expected.std()) > 0.5
    assert float((found - expected).abs().max()) <= 1e-4
    assert not foreign.network.training and foreign.sequence_length == 128
    assert foreign.notes["family"] == family

    write_huggingface(foreign.network, tmp_path / "out", sequence_length=128)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert type(again) is type(model)
    assert float((logits(again, ids) - expected).abs().max()) <= 1e-4
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert ("lm_head.weight" in stored) == (not model.config.tie_word_embeddings)
    assert state(read_huggingface(tmp_path / "out").network).keys() == stored_names(foreign)


def stored_names(foreign):
    return state(foreign.network).keys()


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("tied", [True, False])
def test_round_trip_keeps_every_tensor(family, tied, tmp_path):
    network = ours(tmp_path, family, tie_embeddings=tied)
    one, two = read_huggingface(tmp_path), read_huggingface(tmp_path / "model.safetensors")
    for foreign in (one, two):  # loading twice gives the same
        found = state(foreign.network)
        assert found.keys() == state(network).keys()
        assert all(torch.equal(found[name], each) for name, each in state(network).items())
        assert all(parameter.requires_grad for parameter in foreign.network.parameters())
    assert one.network.config.d_head == network.config.d_head
    files = {name: digest(tmp_path / name) for name in ("config.json", "model.safetensors")}
    assert one.notes["files"] == files and one.format == "huggingface"
    if tied:
        assert one.network.head_weight is one.network.tok_emb.weight


def test_shards_hold_what_the_single_file_held(tmp_path):
    network = ours(tmp_path, "qwen2")
    shard(tmp_path)
    found = state(read_huggingface(tmp_path).network)
    assert all(torch.equal(found[name], each) for name, each in state(network).items())


def test_sources_name_the_origin_of_every_field(tmp_path):
    ours(tmp_path, "qwen3")
    change(tmp_path, without=["rms_norm_eps", "max_position_embeddings"])
    found = read_huggingface(tmp_path)
    assert found.sources["norm_eps"] == "Qwen3 default"
    assert found.sources["d_model"] == "config.json"
    assert found.sources["query_key"] == "Qwen3 architecture"
    assert found.sources["sequence_length"] == "not stated" and found.sequence_length is None
    assert set(found.sources) == {f.name for f in fields(found.network.config)} | {
        "sequence_length"
    }
    given = read_huggingface(tmp_path, sequence_length=32)
    assert (given.sources["sequence_length"], given.sequence_length) == ("given", 32)


def test_dtype_is_that_asked_for(tmp_path):
    network = ours(tmp_path)
    found = read_huggingface(tmp_path, dtype=torch.bfloat16).network
    assert {p.dtype for p in found.parameters()} == {torch.bfloat16}
    assert found.blocks[0].attn.rotary.frequency.dtype == torch.float32
    ids = torch.arange(20)[None]
    exact, rough = logits(network, ids), logits(found, ids).float()
    assert float((exact - rough).abs().max()) < 0.1 * float(exact.abs().max())


def test_a_stored_copy_of_a_tied_head_is_accepted_and_not_kept(tmp_path):
    ours(tmp_path)
    rewrite(
        tmp_path, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()})
    )
    network = read_huggingface(tmp_path).network
    assert "lm_head.weight" not in state(network)


def test_rotary_buffers_of_older_files_are_left_out(tmp_path):
    ours(tmp_path)
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    rewrite(tmp_path, lambda t: t.update({name: torch.ones(2)}))
    assert read_huggingface(tmp_path).notes["ignored"] == [name]


def test_a_tokenizer_goes_along(tmp_path):
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocab={"a": 0, "b": 1}, merges=[]))
    made.decoder = tokenizers.decoders.ByteLevel()
    made.add_special_tokens(["<s>"])
    made.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path / "tokenizer.json")
    network = new_network(preset("llama", **SHAPE), seed=0)
    write_huggingface(network, tmp_path / "out", tokenizer=tokenizer)
    found = read_huggingface(tmp_path / "out")
    assert found.tokenizer == tmp_path / "out" / "tokenizer.json"
    assert load_tokenizer(found.tokenizer).hash == tokenizer.hash
    said = {"bos_token_id": 2, "eos_token_id": None}  # left out, transformers would take 2
    assert found.notes["special_ids"] == said
    ids = {"eos_token_id": [1, 2], "pad_token_id": 0}
    stated = {**ids, "bos_token_id": None}  # what is null leaves the one that is known
    write_huggingface(network, tmp_path / "out", tokenizer=tokenizer, special_ids=stated)
    assert read_huggingface(tmp_path / "out").notes["special_ids"] == {"bos_token_id": 2, **ids}
    write_huggingface(network, tmp_path / "bytes", tokenizer=byte_tokenizer())
    assert not (tmp_path / "bytes" / "tokenizer.json").exists()


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"value_residual": True}, ["value_residual"]),
        ({"output_bias": True, "softcap": 30.0}, ["softcap", "output_bias"]),
        ({"rope_direction": -1}, ["rope_direction"]),
        ({"attention_bias": True, "query_key": "learned"}, ["query_key"]),
        ({"norm_eps": None}, ["norm_eps"]),
    ],
)
def test_what_no_family_computes_is_not_written(fields, named, tmp_path):
    network = new_network(preset("llama", **{**SHAPE, **fields}), seed=0)
    with pytest.raises(ArchMismatch) as caught:
        write_huggingface(network, tmp_path / "out")
    assert [each["name"] for each in caught.value.fields] == named
    assert caught.value.rule_id == "export-field"
    assert not (tmp_path / "out").exists()


def test_a_baseline_is_not_written(tiny_network, tmp_path):
    with pytest.raises(InputError, match="stream mixed, not plain"):
        write_huggingface(tiny_network, tmp_path)


MEMORY = """
import resource, sys
from pathlib import Path
from workbench import foreign, model

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

folder = Path(sys.argv[1])
before = peak()
network = (getattr(foreign, sys.argv[2], None) or getattr(model, sys.argv[2]))(folder)
network = getattr(network, "network", network)
size = sum(p.numel() * p.element_size() for p in network.parameters())
after = peak()
if len(sys.argv) > 3:
    model.save_model(network, folder / "again")
print(size, after - before, peak() - after, int("torch._dynamo" in sys.modules))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("reader", "save"), [("read_huggingface", []), ("load_model", ["save"])])
def test_memory_stays_near_the_size_of_the_weights(reader, save, tmp_path):
    config = preset("qwen2", n_layer=4, n_head=14, n_kv_head=2, d_model=896, vocab_size=20_000)
    network = new_network(config, seed=0)
    if reader == "read_huggingface":
        write_huggingface(network, tmp_path)
    else:
        save_model(network, tmp_path)
    # A child begins with the peak of the process that forked it: let that be a shell.
    shell = ["sh", "-c", '"$@"; exit $?', "sh"]
    done = subprocess.run(
        [*shell, sys.executable, "-c", MEMORY, str(tmp_path), reader, *save],
        capture_output=True,
        text=True,
        check=True,
    )
    size, loading, saving, is_slow = map(int, done.stdout.split())
    assert size > 100e6
    assert 0.9 * size < loading < 1.3 * size
    assert saving < 0.2 * size
    assert not is_slow, "a network without storage must not import torch's compiler"
