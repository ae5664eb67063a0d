"""An update asks nothing of the device that the processor would have to wait for."""

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from workbench.model import new_network, preset
from workbench.training import CrossEntropy, ObjectiveConfig, TrainConfig, optimizers
from workbench.training.begin import batches
from workbench.training.optimizers import OptimizerConfig
from workbench.training.resume import Parts
from workbench.training.schedule import GROUPS
from workbench.training.step import Learner, update

CONFIG = TrainConfig(
    tokens_per_step=128,
    sequence_length=16,
    micro_batches=2,
    tokens_per_pass=64,
    measure_every=1,
    optimizer=OptimizerConfig(clip_grad_norm=1.0, weight_decay=0.1, normalize_rows=True),
    objective=ObjectiveConfig(
        z_loss=1e-4, label_smoothing=0.1, class_weights={"digit": 2.0}, future_tokens=1
    ),
)
ONES = dict.fromkeys(GROUPS, 1.0)
READING = ("_local_scalar_dense", "nonzero", "masked_select", "index", "equal", "is_nonzero")


class HostRead(AssertionError):
    """A number was read off the device."""


class Watchful(TorchDispatchMode):
    """Refuse operations whose result the processor must know."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.__name__.split(".")[0]
        by_mask = name == "index" and any(each.dtype == torch.bool for each in args[1])
        if name in READING and (name != "index" or by_mask):
            raise HostRead(name)
        return func(*args, **(kwargs or {}))


def assembled(data, config):
    network = new_network(preset("demo", n_layer=2, d_model=16, vocab_size=257), seed=0)
    goal = CrossEntropy(config.objective, d_model=16, tokenizer=data.tokenizer)
    learner = Learner(network, goal).to(config.device)
    chosen = optimizers(network, config.optimizer, extra=goal.named_parameters())
    return learner, Parts(model=network, optimizers=chosen, objective=goal)


def test_the_guard_sees_a_read():
    with Watchful():
        with pytest.raises(HostRead):
            float(torch.ones(2).sum())
        with pytest.raises(HostRead):
            torch.ones(2)[torch.ones(2) > 0]


def test_an_update_reads_nothing(tiny_data, monkeypatch):
    """On a processor, told that its tensors are a GPU's: the code that runs there."""
    learner, parts = assembled(tiny_data, CONFIG)
    batch_of = batches(tiny_data, CONFIG)
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    for name in ("tolist", "numpy", "cpu"):
        monkeypatch.setattr(torch.Tensor, name, lambda *_: pytest.fail("read"))
    with Watchful():
        for step in range(2):
            line = update(learner, batch_of(step), parts, CONFIG, step=step, scales=ONES)
    assert {"clipped", "gradient_variance", "zero_update_share", "update_ratio"} <= line.keys()


@pytest.mark.gpu
def test_an_update_does_not_synchronise(tiny_data):
    config = replace(CONFIG, device="cuda", dtype="bfloat16")
    learner, parts = assembled(tiny_data, config)
    batch_of = batches(tiny_data, config)
    update(learner, batch_of(0), parts, config, step=0, scales=ONES)  # what is made once may wait
    torch.cuda.set_sync_debug_mode("error")
    try:
        update(learner, batch_of(1), parts, config, step=1, scales=ONES)
    finally:
        torch.cuda.set_sync_debug_mode("default")
