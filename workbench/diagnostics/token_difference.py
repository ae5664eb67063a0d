"""Did a change pay: two runs on the same text, class by class, with the error of text and seed."""

from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import xarray as xr
from scipy.special import stdtrit

from workbench.diagnostics.annotated import annotated
from workbench.diagnostics.sample import Sample
from workbench.diagnostics.token_loss import token_loss
from workbench.evaluation import ratio_error
from workbench.folder import InputError, RunFolder, runs_root
from workbench.result import check, variable

SAME = ("model", "training", "data", "initial_state", "steps_done")  # of two seeds of one thing


def token_difference(
    this: Sample,
    other: Sample,
    *,
    seeds: Sequence[Sequence[float | None]] = ((), ()),
    names: tuple[str, str] = ("The first run", "the other run"),
) -> xr.Dataset:
    """Subtract the bits per byte of `other` from those of `this`, split where they arise.

    With one tokenizer the parts are classes and ``excess`` is what each adds to the difference;
    with two the classes are not the same tokens, and the parts are documents of equal bytes.
    Either way the parts add up to ``total_excess``. The error is paired: both runs are scored on
    the same text, so what makes a document hard for both cancels.

    Parameters
    ----------
    this, other : Sample
        Two models on one text.
    seeds : two sequences of float
        Bits per byte of each run's seeds, see `seed_results`. Equal sequences, as two seeds of
        one configuration have, count once; what is not finite is counted and left out.
    names : two str, optional
        What the runs are called.

    Returns
    -------
    Dataset
        `token_loss` with ``seed_error`` [bit/byte], the standard error of a difference of two
        single seeds, NaN where no configuration has two; or dim ``document`` in its place. Attrs:
        ``run`` and ``reference``, the names; ``seeds`` (finite ones), ``seeds_not_finite``,
        ``seed_degrees`` (of freedom of ``seed_error``) and ``seed_quantile``, how many of it 95%
        of differences stay within.

    Raises
    ------
    InputError
        If the texts differ.
    """
    if this.data.corpus.hash != other.data.corpus.hash:
        raise InputError(
            "the second run",
            expected=f"one that is judged on {this.data.corpus.name}",
            found=other.data.corpus.name,
            remedy="Compare runs of one corpus, or diagnose both on one with --corpus.",
        )
    if this.tokenizer.hash == other.tokenizer.hash:
        found = token_loss(paired(this, other, name=names[1]))
    else:
        found = _by_document(this.table, other.table)
    error, attrs = _seed_spread(seeds)
    found["seed_error"] = variable((), error, "standard error by training seed", "bit/byte")
    return check(found.assign_attrs(compared=1, run=names[0], reference=names[1], **attrs))


def _seed_spread(seeds: Sequence[Sequence[float | None]]) -> tuple[float, dict[str, float]]:
    """Pool the variances of configurations, each weighted by what it knows."""
    given = [np.array(each, dtype=float) for each in {tuple(each) for each in seeds}]
    pools = [each[np.isfinite(each)] for each in given]
    count, degrees = (sum(max(each.size - less, 0) for each in pools) for less in (0, 1))
    squares = sum(each.var() * each.size for each in pools if each.size)
    attrs = {
        "seeds": count,
        "seeds_not_finite": sum(each.size for each in given) - count,
        "seed_degrees": degrees,
        "seed_quantile": float(stdtrit(degrees, 0.975)) if degrees else np.nan,
    }
    return float(np.sqrt(2 * squares / degrees)) if degrees else np.nan, attrs


def paired(this: Sample, other: Sample, *, name: str = "the other run") -> xr.Dataset:
    """Annotate the tokens that both score: ``excess`` is the loss of `this` minus `other`'s.

    The attr ``reference`` is `name`, what the other run is called.
    """
    both = slice(min(this.table.sizes["token"], other.table.sizes["token"]))
    against = other.table.isel(token=both).assign_attrs(reference=name)
    return annotated(this.table.isel(token=both), this.data, against=against)


def _by_document(this: xr.Dataset, other: xr.Dataset) -> xr.Dataset:
    """Subtract per document, where both have scored the same bytes of it."""
    n = int(max(this.document.max(), other.document.max())) + 1
    size, theirs = (np.bincount(each.document, each.bytes, n) for each in (this, other))
    bits, less = (np.bincount(each.document, each.nll, n) / np.log(2) for each in (this, other))
    at = np.flatnonzero((size == theirs) & (size > 0))
    value = (bits - less)[at] / size[at].sum()
    error = ratio_error((bits - less)[at], size[at].astype(float), at)
    data = {
        "excess": variable("document", value, "difference, of the total", "bit/byte"),
        "bytes": variable("document", size[at], "bytes of the document", "byte"),
        "total_excess": variable((), value.sum(), "difference", "bit/byte"),
        "total_excess_standard_error": variable((), error or np.nan, "its error", "bit/byte"),
    }
    return xr.Dataset(data, coords={"document": at})


def seed_results(run: RunFolder) -> list[float | None]:
    """Return bits per byte of all evaluated runs that differ from `run` in nothing but the seed.

    None is a seed whose result is not finite: it is known of, and cannot be averaged.
    """
    mine, found = run.record(), {}
    for path in sorted(runs_root().glob("*/run.json")):
        with suppress(InputError):
            each = RunFolder(path.parent).record()
            score = each.get("evaluation") or {}
            same = all(each.get(key) == mine.get(key) for key in SAME)
            if (
                same
                and "bits_per_byte" in score
                and score.get("protocol") == (mine.get("evaluation") or {}).get("protocol")
            ):
                found[each["seed"]] = score["bits_per_byte"]
    return [each if np.isfinite(each or 0) else None for each in found.values()]
