"""Tests of a model and its numbers that take seconds and guard everything else."""

import tempfile
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from workbench.diagnostics.sample import Diagnostic, Sample
from workbench.diagnostics.token_loss import token_loss
from workbench.evaluation import bits_per_byte, token_table
from workbench.model import Network, load_model, save_model
from workbench.result import check, variable
from workbench.text import IGNORED, Tokenizer, Tokens, windows

LOGIT_TOLERANCE = 1e-3  # of logits computed in another batch or length, float32

Check = tuple[str, float, float]  # what was measured, value, largest value that passes


def self_test(
    model: Network,
    tokens: Tokens,
    tokenizer: Tokenizer,
    *,
    sequence_length: int,
    limit: int = 8192,
) -> xr.Dataset:
    """Check the model on real rows of text; every check is a number with the limit it must keep.

    Returns
    -------
    Dataset
        Dim ``check``: ``value``, ``limit``, ``passed`` and ``meaning``. NaN never passes.
    """
    first = next(windows(tokens, sequence_length=sequence_length, batch=4))
    device = next(model.parameters()).device
    ids = torch.from_numpy(first.inputs).to(device)
    with torch.no_grad():
        found = {
            "causality": _causality(model, ids),
            "batch_invariance": _batch_invariance(model, ids),
            "padding_invariance": _padding_invariance(model, ids),
            "repeatability": _repeatability(model, ids),
            # A foreign model is not ours to save.
            **({"saved_is_reloaded": _reloaded(model, ids)} if isinstance(model, Network) else {}),
            "tied_is_one": _tied(model),
            "probabilities_sum_to_one": _normalised(model, ids),
        }
    table = token_table(model, tokens, tokenizer, sequence_length=sequence_length, limit=limit)
    found["classes_sum_to_total"] = _class_sums(table)
    found["bytes_are_exact"] = _bytes(tokens, tokenizer)
    found["targets_scored_once"] = _scored_once(tokens, sequence_length)
    meaning, value, most = (np.array(each) for each in zip(*found.values(), strict=True))
    data = {
        "value": variable("check", value, "measured value"),
        "limit": variable("check", most, "largest value that passes"),
        "passed": variable("check", value <= most, "passed"),
        "meaning": variable("check", meaning, "meaning"),
    }
    return check(xr.Dataset(data, coords={"check": list(found)}))


def _causality(model: Network, ids: torch.Tensor) -> Check:
    """Flip a later token; no earlier logit may change."""
    middle = ids.shape[1] // 2
    flipped = ids.clone()
    flipped[:, middle] = (flipped[:, middle] + 1) % model.config.vocab_size
    changes = (model(ids) - model(flipped)).abs()
    before = float(changes[:, :middle].max()) if middle else 0.0
    reached = float(changes[:, middle:].max())  # a model that ignores its input proves nothing
    change = before if reached > 0 else np.nan
    return "largest change of a logit before a flipped token", change, 1e-5


def _batch_invariance(model: Network, ids: torch.Tensor) -> Check:
    """Score rows alone and together."""
    alone = torch.cat([model(row[None]) for row in ids])
    together = model(torch.cat([ids, ids.flip(1)]))[: len(ids)]  # a split may hold one row only
    change = float((together - alone).abs().max())
    return "largest change of a logit between batch and single rows", change, LOGIT_TOLERANCE


def _padding_invariance(model: Network, ids: torch.Tensor) -> Check:
    """Score a prefix alone and followed by padding."""
    half = max(1, ids.shape[1] // 2)
    padded = ids.clone()
    padded[:, half:] = 0
    change = float((model(ids[:, :half]) - model(padded)[:, :half]).abs().max())
    return "largest change of a logit by padding after it", change, LOGIT_TOLERANCE


def _repeatability(model: Network, ids: torch.Tensor) -> Check:
    """Score the same rows twice."""
    change = float((model(ids) - model(ids)).abs().max())
    return "largest change of a logit between two equal passes", change, 0.0


def _reloaded(model: Network, ids: torch.Tensor) -> Check:
    """Save, reload and compare."""
    with tempfile.TemporaryDirectory() as folder:
        save_model(model, Path(folder))
        again = load_model(Path(folder)).to(ids.device)
    change = float((model(ids) - again(ids)).abs().max())
    return "largest change of a logit after saving and reloading", change, 0.0


def _tied(model: Network) -> Check:
    """Ask whether a tied head is the embedding itself, and an untied one is not."""
    same = model.head_weight.data_ptr() == model.matrices()[0].weight.data_ptr()
    wrong = same != model.config.tie_embeddings
    return "head and embedding are one tensor exactly when tied (0: yes)", float(wrong), 0.0


def _normalised(model: Network, ids: torch.Tensor) -> Check:
    """Sum the probabilities of every position, as scoring computes them."""
    total = torch.log_softmax(model(ids).float(), dim=-1).double().exp().sum(dim=-1)
    return "largest distance of a sum of probabilities from 1", float((total - 1).abs().max()), 1e-4


def _class_sums(table: xr.Dataset) -> Check:
    """Compare the sum of the classes with the bits per byte."""
    total = float(token_loss(table).contribution.sum(skipna=False))
    known = np.isfinite(table.nll.values).all()  # bits_per_byte raises where it is not
    gap = abs(total - bits_per_byte(table).bits_per_byte) if known else np.nan
    return "distance of the class sum from the bits per byte", gap, 1e-9


def _bytes(tokens: Tokens, tokenizer: Tokenizer) -> Check:
    """Compare counted bytes with the decoded text, and that text's encoding with the tokens.

    A wrong table of bytes decodes to a text that the encoder, which does not use the table, turns
    into other tokens. The last document may be cut short and is left out when there are others.
    """
    wrong = 0
    for number in range(min(max(tokens.n_document - 1, 1), 50)):
        ids = tokens.ids[tokens.document(number)]
        ids = ids[int(ids[0] == tokenizer.bos) :]
        previous = np.concatenate([[tokenizer.bos], ids[:-1]])
        text = tokenizer.decode(ids)
        counted = int(tokenizer.byte_counts(ids, previous).sum())
        wrong += counted != len(text.encode()) or len(tokenizer.encode(text)) != len(ids)
    return "documents whose bytes are not those of their text", float(wrong), 0.0


def _scored_once(tokens: Tokens, sequence_length: int) -> Check:
    """Count offsets scored more than once, by plain and by sliding windows."""
    wrong = 0
    for stride in (None, max(1, sequence_length // 4)):
        rows = windows(tokens, sequence_length=sequence_length, stride=stride)
        offsets = np.concatenate([w.offsets[w.targets != IGNORED] for w in rows])
        n_target = len(tokens.ids) - 1
        if tokens.answers is not None:
            n_target = int(tokens.answers.sum())
        elif stride is None:
            n_target -= n_target % sequence_length  # the remainder that fills no row
        wrong += len(offsets) - len(np.unique(offsets)) + abs(n_target - len(offsets))
    return "targets scored more than once, or not at all", float(wrong), 0.0


def _measure(sample: Sample) -> xr.Dataset:
    """Run the self-tests on validation text."""
    return self_test(
        sample.model,
        sample.data.validation,
        sample.tokenizer,
        sequence_length=sample.sequence_length,
    )


DIAGNOSTIC = Diagnostic(tier="pass", measure=_measure)
