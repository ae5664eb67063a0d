"""A network that the tests of this folder share and leave as it is."""

import pytest
import torch

from workbench.model import new_network, preset


@pytest.fixture(scope="module")
def tiny_network_shared():
    network = new_network(preset("demo", n_layer=2, d_model=16, vocab_size=257), seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
    return network.eval()
