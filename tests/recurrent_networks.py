"""Networks whose blocks recur, and twins that have a copy of a block for every visit."""

import re

import torch

from workbench.model import Network, from_json, preset, to_json

LOOP = {"first": 1, "last": 2, "passes": 3}
SHAPE = {"n_layer": 4, "n_head": 2, "n_kv_head": 1, "d_model": 8, "vocab_size": 11}
BLOCKS = (0, 1, 2, 1, 2, 1, 2, 3)


def looped(base="demo", **fields):
    """Make a network of four blocks and eight visits, every parameter drawn."""
    network = Network(preset(base, **{**SHAPE, "recurrence": LOOP, **fields})).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.5, generator=generator)
    return network


def unrolled(network, visits):
    """Copy the blocks of these visits one after the other into a network without recurrence."""
    config = {**to_json(network.config), "recurrence": None, "n_layer": len(visits)}
    twin = Network(from_json(config)).double()
    given = network.state_dict()
    blocks = [network.config.visits[visit] for visit in visits]
    own = {}
    for name, tensor in twin.state_dict().items():
        place = re.match(r"blocks\.(\d+)\.(.*)", name)
        found = given[f"blocks.{blocks[int(place[1])]}.{place[2]}" if place else name]
        if name == "value_residual.alpha":
            found = found[[visit - 1 for visit in visits[1:]]]
        own[name] = found[: len(tensor)] if name == "skip_weights" else found
    twin.load_state_dict(own)
    return twin
