"""Networks with a value residual of chosen alphas, tokens for them, and their loss."""

import copy

import numpy as np
import torch

from workbench.model import new_network, preset
from workbench.text import IGNORED

N_LAYER, ROWS, LENGTH = 4, 3, 12


def network(*, n_layer=N_LAYER, alpha=(0.3, -0.4, 0.7), **fields):
    """A network whose attention matters: Gaussian matrices where a fresh one has zeros."""
    config = preset(
        "demo",
        n_layer=n_layer,
        n_head=2,
        n_kv_head=1,
        d_model=32,
        vocab_size=64,
        value_residual=fields,
    )
    made = new_network(config, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        made.tok_emb.weight.normal_(0, 0.3, generator=generator)
        for block in made.blocks:
            block.attn.proj.weight.normal_(0, 0.2, generator=generator)
            block.mlp.proj.weight.normal_(0, 0.1, generator=generator)
        made.value_residual.alpha.copy_(torch.tensor(alpha))
    return made.eval()


def batch(seed=2, rows=ROWS):
    rng = np.random.default_rng(seed)
    ids = torch.from_numpy(rng.integers(0, 64, (rows, LENGTH + 1)))
    targets = ids[:, 1:].clone()
    targets[:, :2] = IGNORED
    return ids[:, :-1], targets


def mean_loss(model):
    inputs, targets = batch()
    with torch.no_grad():
        log_p = model(inputs).double().log_softmax(dim=-1)[:, 2:]
    return -float(log_p.gather(-1, targets[:, 2:, None]).mean())


def with_alpha(model, visit, value):
    changed = copy.deepcopy(model)
    with torch.no_grad():
        changed.value_residual.alpha[visit - 1] = value
    return changed
