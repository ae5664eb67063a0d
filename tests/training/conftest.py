"""Data of the training tests, and a data folder for each test."""

from dataclasses import replace

import pytest

from workbench.model import new_network, preset
from workbench.text import closed_world, train_tokenizer, world_documents, world_tokens
from workbench.training import begin


@pytest.fixture
def own_data_root(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / "data"))


@pytest.fixture(scope="session")
def tiny_world_data(tiny_data):
    """Make the records of a small closed world; only their answers count."""
    world = closed_world(people=3, objects=3, colours=2, places=2)
    tokenizer = train_tokenizer(world_documents(world), vocab_size=300)
    held_out = [record for name in world.held_out for record in world.profiles[name]]
    return replace(
        tiny_data,
        tokenizer=tokenizer,
        train=world_tokens(world.train, tokenizer),
        validation=world_tokens(held_out, tokenizer),
    )


@pytest.fixture
def start(own_data_root, tiny_data):
    """Return a function that makes a network and its run folder."""

    def make(config, *, seed=0, **fields):
        fields = {"n_layer": 2, "d_model": 16, "vocab_size": 257, **fields}
        network = new_network(preset("demo", **fields), seed=seed)
        return network, begin("a", network, tiny_data, config, replace=True)

    return make
