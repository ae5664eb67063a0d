"""Rows of ids to calibrate on: training text, or what the model itself writes."""

import numpy as np
import torch
from torch import Tensor

from workbench.evaluation import OpenRun
from workbench.folder import InputError, nearest
from workbench.model import Network
from workbench.text import IGNORED, Tokens, rows

N_ROW = 400
OWN_ROWS = 64  # at most, of what a model writes itself
TEMPERATURE = 0.8  # of the model's own text: what it finds likely, without its tails


def calibration_rows(
    run: OpenRun, *, calibration: str = "training", n_row: int = N_ROW, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Draw rows of a run's training text, or let its model write its "own".

    Returns
    -------
    rows, scored : tensor
        As of `training_rows`, on the device of the model.

    Raises
    ------
    InputError
        For another `calibration`, or less than one row.
    """
    if calibration not in ("training", "own") or n_row < 1:
        raise InputError(
            "calibration",
            expected="training or own, and 1 or more rows",
            found=f"{calibration!r}, {n_row} rows",
            remedy=nearest(calibration, ["training", "own"]),
        )
    cut = {"sequence_length": run.sequence_length, "n_row": n_row, "seed": seed}
    if calibration == "own" and run.data.train.answers is not None:
        raise InputError(
            "calibration",
            expected="training, for a world whose prompts no model was trained to write",
            found="own",
            remedy="Leave it out.",
        )
    if calibration == "own":
        known = {"first": run.tokenizer.bos, "n_id": run.tokenizer.vocab_size}
        return own_rows(run.model, **known, **{**cut, "n_row": min(n_row, OWN_ROWS)})
    device = run.model.head_weight.device
    found, scored = training_rows(run.data.train, **cut)
    return found.to(device), scored.to(device)


def training_rows(
    tokens: Tokens, *, sequence_length: int, n_row: int = N_ROW, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Draw rows of training text.

    Returns
    -------
    rows : (B, T) int64 tensor
    scored : (B, T) bool tensor
        Positions whose prediction counts: all, or those that answer in a closed world.
    """
    draw = np.random.default_rng(seed)
    if tokens.answers is not None:
        inputs, targets = rows(tokens, sequence_length)
        chosen = draw.permutation(len(inputs))[:n_row]
        return torch.from_numpy(inputs[chosen]), torch.from_numpy(targets[chosen] != IGNORED)
    last = len(tokens.ids) - sequence_length
    starts = draw.integers(0, max(last, 1), size=n_row)
    found = np.stack([tokens.ids[at : at + sequence_length] for at in starts]).astype(np.int64)
    return torch.from_numpy(found), torch.ones(found.shape, dtype=torch.bool)


def own_rows(
    model: Network,
    *,
    first: int,
    n_id: int,
    sequence_length: int,
    n_row: int = OWN_ROWS,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Let the model write the rows, each from the id `first`: where training text is not at hand.

    Ids from `n_id` on, which no text has, are never written. Each row costs its passes anew for
    every id: some minutes for 64 rows of 256 on a processor.

    Returns
    -------
    rows, scored : tensor
        As of `training_rows`.
    """
    device = model.head_weight.device
    generator = torch.Generator(device=device).manual_seed(seed)
    ids = torch.full((n_row, 1), first, device=device)
    with torch.inference_mode():
        while ids.shape[1] < sequence_length:
            logits = model.head(model.hidden(ids)[:, -1])[:, :n_id].float()
            chances = (logits / TEMPERATURE).softmax(dim=-1)
            ids = torch.cat([ids, torch.multinomial(chances, 1, generator=generator)], dim=1)
    return ids.clone(), torch.ones_like(ids, dtype=torch.bool)
