"""A run's folder: made once everything fits, and not a moment before."""

from dataclasses import replace

import numpy as np
import pytest

from workbench.folder import InputError, create_run, find_run, runs_root
from workbench.model import new_network, preset
from workbench.text import Tokens, byte_tokenizer
from workbench.training import TrainConfig, begin

SHORT = TrainConfig(tokens_per_step=64, sequence_length=16, micro_batches=2)


def refused(network, data, config, message, **more):
    with pytest.raises(InputError, match=message):
        begin("a", network, data, config, **more)
    assert not (runs_root() / "a").exists(), "nothing half-made is left"


def small_network(vocab_size=257):
    return new_network(preset("demo", n_layer=1, d_model=16, vocab_size=vocab_size), seed=0)


def test_data_that_do_not_fit_are_refused(own_data_root, tiny_data, tiny_world_data):
    refused(small_network(256), tiny_data, SHORT, "at least the tokenizer's 257")
    long = replace(SHORT, tokens_per_step=2**16, micro_batches=1)
    refused(small_network(), tiny_data, long, "training split")
    refused(small_network(), tiny_data, replace(SHORT, tokens_per_step=65), "tokens_per_step")
    short = Tokens(ids=tiny_data.validation.ids[:9], starts=np.array([0]))
    refused(small_network(), replace(tiny_data, validation=short), SHORT, "validation split")
    refused(small_network(1000), tiny_world_data, SHORT, "sequence_length")


def test_a_taken_name_is_refused(own_data_root, tiny_data):
    network = small_network()
    run = begin("a", network, tiny_data, SHORT)
    with pytest.raises(InputError, match="not yet taken"):
        begin("a", network, tiny_data, SHORT)
    assert run.record()["status"] == "planned"


def test_a_parent_with_another_tokenizer_is_refused(own_data_root, tiny_data):
    create_run("parent").update(data={**tiny_data.identity(), "tokenizer_hash": "f" * 64})
    refused(
        small_network(), tiny_data, SHORT, "tokenizer ffffffffffff", origin={"parent": "parent"}
    )
    refused(small_network(), tiny_data, SHORT, "none of that name", origin={"parent": "orphan"})
    find_run("parent").update(data=tiny_data.identity())
    run = begin("a", small_network(), tiny_data, SHORT, origin={"parent": "parent"})
    assert run.record()["parent"] == "parent"
    assert (run.path / "tokenizer" / "bytes.txt").exists()
    assert byte_tokenizer().hash == run.record()["data"]["tokenizer_hash"]
