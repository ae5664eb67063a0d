"""All diagnostics that apply to a model, on one sample of text."""

import pkgutil
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import xarray as xr

import workbench.diagnostics
from workbench import result
from workbench.diagnostics.sample import Diagnostic, Sample, sample
from workbench.diagnostics.sweep import sweep
from workbench.evaluation import OpenRun
from workbench.folder import InputError, check_known, code_version, replacing
from workbench.model import Network
from workbench.text import Data, class_scheme

TIERS = ("weights", "pass", "backward", "intervention")
FIRST = "self_test"  # the rest means nothing where it fails


def diagnostics() -> dict[str, Diagnostic]:
    """Find every module of this part that names a `DIAGNOSTIC`; the cheapest come first."""
    names = [each.name for each in pkgutil.iter_modules(workbench.diagnostics.__path__)]
    modules = {name: import_module(f"workbench.diagnostics.{name}") for name in names}
    found = {
        name: module.DIAGNOSTIC for name, module in modules.items() if hasattr(module, "DIAGNOSTIC")
    }
    order = sorted(found, key=lambda name: (name != FIRST, TIERS.index(found[name].tier), name))
    return {name: found[name] for name in order}


def diagnose(
    model: OpenRun | Network,
    corpus: Data | str | None = None,
    *,
    tokens: int | None = None,
    only: Sequence[str] | None = None,
    watch: Callable[[str, float], object] | None = None,
) -> dict[str, xr.Dataset]:
    """Run every diagnostic that applies, on the validation split.

    Those of tier ``pass`` share one forward pass over the split.

    Parameters
    ----------
    model : OpenRun, Network or Adapter
        A run, or a network (or what `foreign.adapt` returns) alone with opened data as `corpus`.
    corpus : Data or str, optional
        Another text than the run's own: opened data, a known name or a path.
    tokens : int, optional
        Score about this many tokens at most.
    only : sequence of str, optional
        Names of `diagnostics`; by default all.
    watch : callable, optional
        Called with what is being measured and the share of all work that is done before it.

    Returns
    -------
    dict of str to Dataset
        A diagnostic that does not apply is absent.

    Raises
    ------
    InputError
        For an unknown name, or one asked for that does not apply; the reason is given.
    """
    known = diagnostics()
    check_known(only or (), known, what="diagnostic")
    given = sample(model, corpus, tokens=tokens)
    reasons = {name: known[name].missing(given) for name in only or known}
    for name in only or ():
        if reasons[name]:
            raise InputError(
                f"diagnostic {name!r}",
                expected="something it can measure",
                found=reasons[name],
                remedy="Leave it out.",
            )
    wanted = {name: known[name] for name in known if name in reasons and not reasons[name]}
    found = _measured(given, wanted, watch or (lambda name, done: None))
    # Groups of one file may be measured at different times: each says its own.
    says = {
        "measured_tokens": "all" if tokens is None else str(tokens),
        "measured_corpus": given.data.corpus.hash,
        "measured_context": str(given.sequence_length),
        "measured_by": code_version(),
    }
    return {name: found[name].assign_attrs(says) for name in wanted}


def _measured(
    given: Sample, wanted: Mapping[str, Diagnostic], watch: Callable[[str, float], object]
) -> dict[str, xr.Dataset]:
    """Measure what is wanted: the shared pass once, the others one by one."""
    passes = {name: each.start(given) for name, each in wanted.items() if each.start}
    alone = {name: each.measure for name, each in wanted.items() if each.measure}
    total = len(alone) + bool(passes)
    found = {}
    for number, (name, measure) in enumerate(alone.items()):
        watch(name, number / total)
        found[name] = measure(given)
    if passes:
        table = sweep(
            given.model,
            given.data.validation,
            given.tokenizer,
            sequence_length=given.sequence_length,
            reducers=list(passes.values()),
            limit=given.limit,
            watch=lambda done: watch("forward pass", (len(alone) + done) / total),
        )
        found |= {name: reducer.result(table) for name, reducer in passes.items()}
    return found


def save_diagnosis(
    run: OpenRun,
    groups: Mapping[str, xr.Dataset],
    *,
    corpus: str | None = None,
) -> Path:
    """Write ``diagnosis.nc`` into the run, or ``diagnosis-NAME.nc`` for another corpus.

    Groups measured before on the same data are kept.
    """
    data = run.data_of(corpus)
    given = sample(run, corpus)
    reasons = {name: each.missing(given) for name, each in diagnostics().items()}
    own = data.corpus.hash == run.record["data"]["corpus_hash"]
    stem = "diagnosis" if own else f"diagnosis-{Path(data.corpus.name).stem}"
    path = run.folder.path / f"{stem}.nc"
    kept_of = {
        **run.provenance(),
        "weights": run.folder.weights(),
        "measured_on": data.corpus.name,
        "measured_corpus_hash": data.corpus.hash,
        "class_scheme_hash": class_scheme(data.tokenizer).hash,
    }
    absent = {name: reason for name, reason in reasons.items() if reason}
    with replacing(path) as scratch:
        whole = {**_kept(path, kept_of), **groups}
        result.save(whole, scratch, provenance={**kept_of, "absent": absent})
    return path


def _kept(path: Path, provenance: Mapping[str, Any]) -> dict[str, xr.Dataset]:
    """Read the groups of an earlier diagnosis of the same data, if there is a readable one.

    What was absent then may have been made since, as an artifact is.
    """
    try:
        before = result.open_tree(path)
    except OSError:  # missing, or damaged: then it is made anew
        return {}
    if {**result.provenance(before), "absent": None} != {**provenance, "absent": None}:
        return {}
    return {name: node.to_dataset() for name, node in before.children.items()}
