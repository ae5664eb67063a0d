"""Training settings: what is out of range, and which device and dtype auto means."""

import pytest
import torch
from repository import PROJECT

from workbench.folder import InputError
from workbench.training import train_config
from workbench.training.config import CONTINUED


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps"),
        ({"tokens_per_step": 0}, "tokens_per_step"),
        ({"micro_batches": -1}, "micro_batches"),
        ({"warmdown_steps": -1}, "warmdown_steps"),
        ({"warmup_steps": -1}, "warmup_steps"),
        ({"learning_rate_factor": 0.0}, "learning_rate_factor"),
        ({"learning_rate_factor": float("nan")}, "learning_rate_factor"),
        ({"learning_rate_factor": float("inf")}, "learning_rate_factor"),
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


def rates(**settings):
    """Return the factor and the warmup of a configuration."""
    config = train_config(optimizer={}, device="cpu", **settings)
    return config.learning_rate_factor, config.warmup_steps


def test_trained_weights_are_continued_gently_unless_it_is_said_otherwise():
    fresh, trained = {"trained": False}, {"trained": True}
    usual = CONTINUED["learning_rate_factor"], CONTINUED["warmup_steps"]
    assert rates() == rates(start=fresh) == (1.0, 0) != usual
    assert rates(start=trained) == usual
    assert rates(start=trained, learning_rate_factor=None, warmup_steps=None) == usual
    assert rates(start=trained, learning_rate_factor=0.5) == (0.5, usual[1])
    assert rates(start=trained, warmup_steps=0, learning_rate_factor=1) == (1, 0)
    assert rates(warmup_steps=7, learning_rate_factor=None) == (1.0, 7)


def test_the_notebook_tells_these_defaults():
    text = (PROJECT / "notebooks" / "experiments" / "train.ipynb").read_text(encoding="utf-8")
    assert f"null: 1, or {CONTINUED['learning_rate_factor']} for trained weights" in text
    assert f"null: 0, or {CONTINUED['warmup_steps']} for trained ones" in text
