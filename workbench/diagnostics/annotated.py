"""What a token table lacks to be taken apart: places, neighbours, frequency, and a reference."""

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from workbench.diagnostics.reference import offsets, reference
from workbench.result import check, variable
from workbench.text import TOKEN_CLASSES, Data, Tokenizer, class_scheme, classify, frequency_deciles

ENDS = (b".", b"!", b"?")
LED_BY = 12  # tokens shown before a token
CLOSERS = b" \"')]\r\n\t"  # may stand between the end of a sentence and the next


def annotated(table: xr.Dataset, data: Data, *, against: xr.Dataset | None = None) -> xr.Dataset:
    """Add to a token table all that the measures of losses group by.

    Parameters
    ----------
    table : Dataset
        Token table of the validation split of `data`.
    data : Data
        The text, tokenised.
    against : Dataset, optional
        ``nll`` of the same tokens to measure the excess over, and attr ``reference`` that says
        whose it is; by default that of `reference`. Another run's token table will do.

    Returns
    -------
    Dataset
        `table` with ``excess`` [bit], ``decile``, ``offset`` into the validation ids, ``previous``
        id, ``top1_class`` and ``opens_sentence``; attr ``reference``.
    """
    against = reference(table, data) if against is None else against
    ids, at = data.validation.ids, offsets(table, data.validation)
    before, scheme = ids[at - 1], class_scheme(data.tokenizer)
    deciles = frequency_deciles(np.bincount(data.train.ids, minlength=data.tokenizer.vocab_size))
    opens = _after_sentence(data)[at - 1]
    opens &= table.token_class.values == TOKEN_CLASSES.index("word_start")
    about, bits = against.attrs["reference"], (table.nll.values - against.nll.values) / np.log(2)
    added = {
        "excess": variable("token", bits, "loss above the reference", "bit"),
        "decile": variable("token", deciles[table.id.values], "frequency decile"),
        "offset": variable("token", at, "place in the ids of the split"),
        "previous": variable("token", before, "token id before the target"),
        "top1_class": variable("token", classify(scheme, table.top1, before), "class of the first"),
        "opens_sentence": variable("token", opens, "first word of a sentence"),
    }
    return check(table.assign(added).assign_attrs(reference=about))


def worded(rows: xr.Dataset, data: Data) -> xr.Dataset:
    """Put rows of an annotated table into words, for a reader.

    Parameters
    ----------
    rows : Dataset
        A choice of its rows.
    data : Data
        The text, tokenised.

    Returns
    -------
    Dataset
        `rows` with ``probability`` of the target, and coords ``target``, ``winner`` (predicted
        first), ``kind`` (class) and ``before``, the text that leads to the target.
    """
    ids, pieces = data.validation.ids, token_names(data.tokenizer)
    before = [data.tokenizer.decode(ids[max(0, at - LED_BY) : at]) for at in rows.offset.values]
    names = {
        "target": ("token", pieces[rows.id.values]),
        "winner": ("token", pieces[rows.top1.values]),
        "kind": ("token", np.array(TOKEN_CLASSES)[rows.token_class.values]),
        "before": ("token", np.array(before, dtype=str)),
    }
    sure = variable("token", np.exp(-rows.nll.values), "probability of the target")
    return check(rows.assign(probability=sure).assign_coords(names))


def token_names(tokenizer: Tokenizer) -> NDArray[np.str_]:
    """Return the text of each token id, or its name where it stands for none, (vocabulary,)."""
    texts = [raw.decode("utf-8", "replace") for raw in tokenizer.token_bytes]
    known = zip(texts, tokenizer.pieces, strict=True)
    return np.array([name if not text or "\ufffd" in text else text for text, name in known])


def _after_sentence(data: Data) -> NDArray[np.bool_]:
    """Tell for each validation id whether the visible text up to it ends a sentence."""
    raw, ids = data.tokenizer.token_bytes, data.validation.ids
    ends = np.array([each.rstrip(CLOSERS).endswith(ENDS) for each in raw])
    passed = np.array([bool(each) and not each.strip(CLOSERS) for each in raw])
    last = np.maximum.accumulate(np.where(passed[ids], 0, np.arange(len(ids))))
    found: NDArray[np.bool_] = ends[ids[last]]
    return found
