"""Claims of the contract that no other test makes: see contract.toml."""

import os
from dataclasses import asdict

import numpy as np
import pytest
import torch
from huggingface_models import ours

from workbench.evaluation import bits_per_byte, token_table
from workbench.foreign import read_huggingface, write_huggingface
from workbench.model import new_network, preset, starting_point, state
from workbench.training import adopt, judge_start, read_foreign

LLAMA_370M = {
    **{"n_layer": 24, "n_head": 16, "n_kv_head": 4, "d_model": 1024, "vocab_size": 50257},
    **{"feedforward_width": 2816, "rope_base": 10000.0, "norm_eps": 1e-5, "tie_embeddings": True},
    **{"attention_bias": False, "output_bias": False, "softcap": None, "value_residual": None},
    **{"feedforward": "swiglu", "stream": "plain", "query_key": "plain", "head_width": None},
}


def test_the_baseline_without_an_origin_is_what_it_was():
    given = ("n_layer", "n_head", "n_kv_head", "d_model", "vocab_size", "feedforward_width")
    config = preset("llama", **{name: LLAMA_370M[name] for name in given})
    assert {name: asdict(config)[name] for name in LLAMA_370M} == LLAMA_370M
    small = preset("llama", n_layer=2, d_model=16, vocab_size=37)
    one, two = starting_point(small, seed=3), new_network(small, seed=3)
    assert one.config == two.config == small
    assert all(torch.equal(state(two)[name], each) for name, each in state(one).items())


class Relabelled:
    """A tokenizer whose tokens carry other ids."""

    def __init__(self, tokenizer, new_of):
        self.whole, self.new_of, self.old_of = tokenizer, new_of, np.argsort(new_of)
        self.bos = int(new_of[tokenizer.bos])
        self.token_bytes = [tokenizer.token_bytes[old] for old in self.old_of]

    def __getattr__(self, name):
        return getattr(self.whole, name)

    def byte_counts(self, ids, previous):
        return self.whole.byte_counts(self.old_of[ids], self.old_of[previous])


def test_bits_per_byte_do_not_depend_on_the_ids_of_tokens(tiny_network, tiny_data):
    tokens, tokenizer = tiny_data.validation, tiny_data.tokenizer
    score = bits_per_byte(token_table(tiny_network, tokens, tokenizer, sequence_length=16))
    new_of = np.random.default_rng(0).permutation(257).astype(np.int32)
    with torch.no_grad():
        rows = tiny_network.tok_emb.weight[torch.from_numpy(np.argsort(new_of))].clone()
        tiny_network.tok_emb.weight.copy_(rows)
    moved = type(tokens)(ids=new_of[tokens.ids], starts=tokens.starts)
    table = token_table(tiny_network, moved, Relabelled(tokenizer, new_of), sequence_length=16)
    again = bits_per_byte(table)
    assert again.bits_per_byte == pytest.approx(score.bits_per_byte, rel=1e-6)
    assert (again.bytes, again.tokens) == (score.bytes, score.tokens)
    wrong = bits_per_byte(token_table(tiny_network, tokens, tokenizer, sequence_length=16))
    assert abs(wrong.bits_per_byte - score.bits_per_byte) > 0.1, "ids that were not renamed"


def test_an_import_tells_its_origin_and_its_export_reads_back(tmp_path, monkeypatch, tiny_data):
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / "data"))
    network = ours(tmp_path / "theirs", "qwen2", vocab_size=257)
    tiny_data.tokenizer.save(tmp_path / "tokenizer")
    foreign = read_foreign(tmp_path / "theirs", tokenizer=str(tmp_path / "tokenizer"))
    told = adopt("a", foreign, tiny_data, path=tmp_path / "theirs").record()["imported"]
    assert (told["format"], told["family"]) == ("huggingface", "qwen2")
    assert told["hf_architecture"] == "Qwen2ForCausalLM"
    assert set(told["files"]) == {"config.json", "model.safetensors"}
    assert told["sources"].keys() >= asdict(network.config).keys()
    again = starting_point(preset("demo", parent="a"), seed=0, parent="a")
    write_huggingface(again, tmp_path / "out", sequence_length=64)
    back = read_huggingface(tmp_path / "out").network
    assert back.config == again.config
    assert all(torch.equal(state(back)[name], each) for name, each in state(network).items())
    assert sorted(os.listdir(tmp_path / "out")) == ["config.json", "model.safetensors"]


@pytest.mark.gpu
def test_loaded_weights_count_on_a_gpu_too(tmp_path, tiny_data):
    ours(tmp_path, "qwen2", vocab_size=257)
    network = read_huggingface(tmp_path).network
    here = judge_start(network, tiny_data, sequence_length=16)["loss"]
    there = judge_start(network.to("cuda"), tiny_data, sequence_length=16)["loss"]
    fresh = new_network(network.config, seed=0)
    assert there == pytest.approx(here, rel=1e-4)
    assert abs(here - judge_start(fresh, tiny_data, sequence_length=16)["loss"]) > 0.1
