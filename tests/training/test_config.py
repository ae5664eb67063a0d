"""Training settings: what is out of range, and which device and dtype auto means."""

import pytest
import torch

from workbench.folder import InputError
from workbench.training import train_config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps"),
        ({"tokens_per_step": 0}, "tokens_per_step"),
        ({"micro_batches": -1}, "micro_batches"),
        ({"warmdown_steps": -1}, "warmdown_steps"),
        ({"seconds": 0.0}, "seconds"),
        ({"seconds": float("nan")}, "seconds"),
        ({"seconds": float("inf")}, "seconds"),
        ({"dtype": "float16"}, "loss scaling"),
        ({"optimizer": {"matrixlr": 1}}, "Nearest: matrix_lr"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(InputError, match=message):
        train_config(**{"optimizer": {}, "device": "cpu", **settings})


def test_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = train_config(optimizer={"matrix_lr": 0.02})
    assert (config.device, config.dtype, config.optimizer.matrix_lr) == ("cpu", "float32", 0.02)
    with pytest.raises(InputError, match="no such GPU"):
        train_config(optimizer={}, device="cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    config = train_config(optimizer={})
    assert (config.device, config.dtype) == ("cuda", "bfloat16")
    assert train_config(optimizer={}, dtype="float32").dtype == "float32"
