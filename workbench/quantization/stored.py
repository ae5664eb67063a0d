"""Artifacts of a run: judged on text that did not choose them, kept in its folder, opened again."""

import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from workbench.evaluation import OpenRun, bits_per_byte, evaluate, token_table
from workbench.folder import InputError, RunFolder, nearest, replacing, valid_name
from workbench.model import Network
from workbench.quantization.artifact import open_artifact, write_artifact
from workbench.quantization.budget import Quantized
from workbench.quantization.grid import Codes
from workbench.result import check, grouped_ratio, save, variable
from workbench.text import Tokens

CHOSEN = "artifact.wba"  # copy of the artifact that was made last


@dataclass(frozen=True)
class Judge:
    """Two halves of the validation text of a run: one to choose by, the other to report."""

    run: OpenRun
    limit: int | None = None  # tokens of each half at most

    @cached_property
    def halves(self) -> tuple[Tokens, Tokens]:
        """What is chosen by, and what is reported: other documents, where there are several."""
        return self.run.data.validation.halves(least=self.run.sequence_length + 1)

    @cached_property
    def _exact(self) -> tuple[xr.Dataset, xr.Dataset]:
        """Score both halves with the model as it is."""
        first, second = self.halves
        return self._table(self.run.model, first), self._table(self.run.model, second)

    def _table(self, model: Network, tokens: Tokens) -> xr.Dataset:
        """Score a half."""
        cut: dict[str, Any] = {"sequence_length": self.run.sequence_length, "limit": self.limit}
        return token_table(model, tokens, self.run.tokenizer, **cut)

    def cost(self, model: Network) -> float:
        """Return what a model adds on the half to choose by [bit/byte]."""
        table = self._table(model, self.halves[0])
        return bits_per_byte(table).bits_per_byte - bits_per_byte(self._exact[0]).bits_per_byte

    def report(self, model: Network) -> dict[str, Any]:
        """Return what a model adds on the other half, with its paired standard error.

        Returns
        -------
        dict
            ``gap`` and ``gap_standard_error`` [bit/byte] (None with fewer than two groups),
            ``gap_chosen_by``, that of the other half, and ``gap_tokens``.
        """
        before, after = self._exact[1], self._table(model, self.halves[1])
        bits = (after.nll.values - before.nll.values) / math.log(2)
        _, group = np.unique(before.group.values, return_inverse=True)
        sums = np.bincount(group, bits), np.bincount(group, before.bytes.values)
        gap, error = grouped_ratio(*(each.astype(np.float64) for each in sums))
        return {
            "gap": float(gap),
            "gap_standard_error": None if np.isnan(error) else float(error),
            "gap_chosen_by": self.cost(model),
            "gap_tokens": len(bits),
        }


def keep_artifact(
    run: OpenRun, name: str, tensors: Quantized, *, made: Mapping[str, Any]
) -> tuple[Path, dict[str, int]]:
    """Write ``artifacts/NAME.wba`` into a run, and make it the chosen one.

    Parameters
    ----------
    made : mapping
        How it was made and what it is worth, for the run's record.

    Returns
    -------
    path : Path
    account : dict of str to int
        See `write_artifact`.
    """
    path = run.folder.path / "artifacts" / f"{valid_name(name)}.wba"
    path.parent.mkdir(exist_ok=True)
    account = write_artifact(run.model.config, tensors, path)
    with replacing(run.folder.path / CHOSEN) as scratch:
        shutil.copyfile(path, scratch)
    known = run.folder.record().get("artifacts") or {}
    this = {**made, "bytes": path.stat().st_size, "weights": run.folder.weights()}
    run.folder.update(artifacts={**known, name: this}, artifact=name)
    return path, account


def account_table(tensors: Quantized, account: Mapping[str, int]) -> xr.Dataset:
    """Lay out where the bytes of an artifact went: dim ``part``, a tensor each, and the rest.

    Returns
    -------
    Dataset
        ``bytes``, and of each tensor ``weights``, ``bits_per_weight``, ``zero_share`` and
        ``saturated_share``, NaN where it is no matrix of codes.
    """
    codes = {n: each for n, each in tensors.items() if isinstance(each, Codes)}
    size = {name: each.codes.numel() for name, each in codes.items()}
    size |= {n: each.numel() for n, each in tensors.items() if not isinstance(each, Codes)}
    known: dict[str, tuple[str, Mapping[str, float], str]] = {
        "bytes": ("bytes in the file", account, "byte"),
        "weights": ("numbers in it", size, "1"),
        "bits_per_weight": ("bits a number", {n: 8 * account[n] / size[n] for n in size}, "bit"),
        "zero_share": (
            "share of the codes that are 0",
            {name: float((each.codes == 0).float().mean()) for name, each in codes.items()},
            "1",
        ),
        "saturated_share": (
            "share of the codes at the end of their grid",
            {name: each.saturated for name, each in codes.items()},
            "1",
        ),
    }
    data = {
        name: variable("part", [values.get(part, np.nan) for part in account], what, unit)
        for name, (what, values, unit) in known.items()
    }
    return check(xr.Dataset(data, coords={"part": list(account)}))


def verdict(run: OpenRun, name: str) -> str:
    """Say what an artifact is worth; the sentence is recorded too."""
    record = run.folder.record()
    made = record["artifacts"][name]
    own = (record.get("evaluation") or {}).get("bits_per_byte")
    beside = "" if own is None else f", the weights {own:.4f}"
    error, wanted = made["gap_standard_error"], made.get("wanted") or {}
    spread = "" if error is None else f" +- {error:.4f} (standard error)"
    budget = f" of {wanted['bytes']:,}" if "bytes" in wanted else ""
    said = (
        f"artifact {name!r}: {made['bytes']:,}{budget} bytes, {made['bits_per_byte']:.4f} bit/byte"
        f"{beside}; on text that chose nothing it costs {made['gap']:.4f}{spread} bit/byte"
    )
    if "gap" in wanted:
        is_missed = made["gap"] > wanted["gap"] + 2 * (error or 0.0)
        said += f", {'more than' if is_missed else 'in line with'} the {wanted['gap']:g} asked for"
    run.folder.update(artifacts={**record["artifacts"], name: {**made, "verdict": said}})
    return said


def artifact_path(folder: RunFolder, name: str = "") -> Path:
    """Return the file of an artifact; the chosen one without a name.

    Raises
    ------
    InputError
        If there is none; the nearest names are listed.
    """
    path = folder.path / (f"artifacts/{valid_name(name)}.wba" if name else CHOSEN)
    if path.exists():
        return path
    known = sorted(each.stem for each in path.parent.glob("*.wba"))
    make = f"Make one: python -m workbench quantize {folder.name}."
    raise InputError(
        f"artifact {name!r} of run {folder.name!r}" if name else f"run {folder.name!r}",
        expected="an artifact",
        found="none of that name" if name else "none",
        remedy=nearest(name, known) if name and known else make,
    )


def open_quantized(run: OpenRun, name: str = "") -> OpenRun:
    """Open a run with the weights of one of its artifacts in place of its own."""
    network, _ = open_artifact(artifact_path(run.folder, name))
    return replace(run, model=network.to(run.model.head_weight.device))


def evaluate_artifact(
    run: OpenRun, name: str = "", **how: Any
) -> tuple[dict[str, Any], xr.Dataset]:
    """Judge an artifact as `evaluate` judges a run.

    On the run's own text in full its score is kept: in the record, and token by token beside it.
    """
    record = run.folder.record()
    name = name or record.get("artifact") or ""
    path = artifact_path(run.folder, name)
    summary, table = evaluate(open_quantized(run, name), **how)
    summary["artifact_bytes"] = path.stat().st_size
    whole = how.get("corpus") is None and how.get("limit") is None
    if whole and how.get("protocol", "full") == "full":
        with replacing(path.parent / f"{path.stem}.tokens.nc") as scratch:
            save({"tokens": table}, scratch, provenance=run.provenance())
        known = record.get("artifacts") or {}
        scored = {key: summary[key] for key in ("bits_per_byte", "standard_error", "loss_nat")}
        run.folder.update(artifacts={**known, name: {**known.get(name, {}), **scored}})
    return summary, table
