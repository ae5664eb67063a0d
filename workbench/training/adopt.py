"""Make a run of a checkpoint that was trained elsewhere."""

from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any

import torch

from workbench.folder import InputError, RunFolder, append_jsonl, environment
from workbench.foreign import Foreign, init_loss_verdict, read_huggingface, read_parameter_golf
from workbench.foreign.loaded import check_file
from workbench.model import save_model
from workbench.text import Data
from workbench.training.begin import check_data, describe

READERS = {"huggingface": read_huggingface, "parameter-golf": read_parameter_golf}
DTYPES = ("float32", "bfloat16", "float16")
LONGEST = 2048  # tokens of context that are taken without being asked for
SAME = 0.0005  # bit/byte: the same model on the same text


def read_foreign(
    path: str | Path, *, format: str = "", dtype: str = "float32", **given: Any
) -> Foreign:
    """Read a checkpoint of any format, from plain values.

    Parameters
    ----------
    path : str or Path
        File or folder.
    format : str
        Key of `READERS`; ``""`` tells it by the name: ``.pt`` and ``.ptz`` are Parameter Golf's.
    dtype : str
        Of the weights in memory.
    **given
        What the reader takes; an empty value is as good as none.

    Raises
    ------
    InputError
        If the checkpoint is refused, has no tokenizer, or tells itself what is given.
    """
    by_name = "parameter-golf" if Path(path).suffix in (".pt", ".ptz") else "huggingface"
    read = READERS.get(format or by_name)
    known = list(signature(read).parameters) if read else []
    settings = {name: value for name, value in given.items() if value not in (None, "")}
    odd = [name for name in settings if name not in known and "overrides" not in known]
    if read is None or odd or dtype not in DTYPES:
        raise InputError(
            path,
            expected=f"one of {', '.join(READERS)} in one of {', '.join(DTYPES)}",
            found=f"{format or by_name} in {dtype}" + (f", with {', '.join(odd)}" if odd else ""),
            remedy="Leave out what the format tells itself." if odd else "Check the parameters.",
        )
    foreign = read(path, dtype=getattr(torch, dtype), **settings)
    if foreign.tokenizer is None:
        raise InputError(
            path, expected="a tokenizer beside it", found="none", remedy="Pass -p tokenizer PATH."
        )
    if not Path(foreign.tokenizer).is_dir():
        check_file(Path(foreign.tokenizer))
    return foreign


def adopt(
    name: str, foreign: Foreign, data: Data, *, path: str | Path, replace: bool = False
) -> RunFolder:
    """Make the folder of a finished run from a checkpoint.

    Parameters
    ----------
    name : str
        Of the run.
    foreign : Foreign
        The checkpoint. Its context is taken up to `LONGEST` tokens, unless it was given.
    data : Data
        What it is judged on.
    path : str or Path
        Where it was read from, for the record.
    replace : bool
        Remove a run of that name first.

    Raises
    ------
    InputError
        If weights are not finite, the data do not fit or the name is taken; nothing is made then.
    """
    broken = [name for name, p in foreign.network.named_parameters() if not p.isfinite().all()]
    if broken:
        raise InputError(
            path, expected="finite weights", found=", ".join(broken[:3]), remedy="Choose another."
        )
    length = foreign.sequence_length or LONGEST
    if foreign.sources.get("sequence_length") != "given":
        length = min(length, LONGEST)
    check_data(foreign.network, data, sequence_length=length)
    run = describe(name, foreign.network, data, replace=replace)
    save_model(foreign.network, run.path)
    for line in foreign.metrics:
        append_jsonl(run.metrics, line)
    training = dict(foreign.notes.get("training", {}))
    run.update(
        parent=None,
        seed=training.pop("seed", None),
        training={**training, "sequence_length": length, "device": "elsewhere"},
        steps_done=training.get("steps", 0),
        environment=environment(),
        imported={
            "path": str(Path(path).resolve()),
            "format": foreign.format,
            "sources": dict(foreign.sources),
            "rows_without_token": foreign.network.config.vocab_size - data.tokenizer.vocab_size,
            "assumed": [name for name, source in foreign.sources.items() if "default" in source],
            **{key: foreign.notes[key] for key in foreign.notes.keys() - {"training", "ignored"}},
        },
        status="finished",
    )
    return run


def compare_recorded(run: RunFolder, summary: Mapping[str, Any]) -> str:
    """Hold a score against the one that came with the checkpoint; the verdict is recorded too.

    Parameters
    ----------
    run : RunFolder
        An adopted run.
    summary : mapping
        ``bits_per_byte`` and ``loss_nat`` as measured here, see `evaluation.evaluate`.
    """
    record = run.record()
    imported, vocab_size = record["imported"], record["model"]["vocab_size"]
    bits_per_byte = summary["bits_per_byte"]
    start = init_loss_verdict(summary["loss_nat"], vocab_size=vocab_size)["diagnosis"]
    recorded = imported.get("recorded_bits_per_byte")
    verdict = f"{bits_per_byte:.4f} bit/byte, with no recorded score to compare with"
    if recorded is not None:
        gap = bits_per_byte - recorded
        verdict = f"{bits_per_byte:.4f} bit/byte, recorded {recorded:.4f}, difference {gap:+.4f}"
        if not abs(gap) <= SAME:
            doubtful = ", ".join(["step", "corpus", "tokenizer", "protocol", *imported["assumed"]])
            verdict = f"MISMATCH: {verdict}. Any of these may be another: {doubtful}."
    verdict = f"{verdict.rstrip('.')}. By its loss the checkpoint is {start}."
    run.update(imported={**imported, "verdict": verdict})
    return verdict
