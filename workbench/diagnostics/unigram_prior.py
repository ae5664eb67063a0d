"""Whether the constant part of the logits says more than how common a token is.

The best model without context has the log-frequency of a token as its logit, so bias and prior
that follow it are healthy. What they favour beyond it, they favour in every context.
"""

import numpy as np
import xarray as xr

from workbench.diagnostics.branch import output_head
from workbench.diagnostics.sample import Diagnostic, Sample
from workbench.result import check, variable
from workbench.text import TOKEN_CLASSES, class_scheme

SEEN = 20  # times a token is learned before its frequency is compared


def unigram_prior(sample: Sample) -> xr.Dataset:
    """Compare output bias and prior of every token with its frequency in training.

    Parameters
    ----------
    sample : Sample
        Its `reference` gives the mean hidden state; targets of its training split are counted.

    Returns
    -------
    Dataset
        Dim ``vocabulary``: `prior` and `bias`, less their mean over the judged tokens,
        `log_unigram`, `excess` of their sum over the line through the judged [nat], `norm` of the
        head's row, `count`; coords `piece`, `token_class`. Tokens learned fewer than `SEEN` times
        have no `excess`. Attrs: ``correlation`` and ``slope`` of that line, ``judged``.
    """
    head, (mu, about) = output_head(sample.model), sample.reference
    pieces, train = sample.tokenizer.pieces, sample.data.train
    learned = train.ids[1:] if train.answers is None else train.ids[train.answers]
    every = slice(len(pieces))  # a model may have more ids than its tokenizer
    count = np.bincount(learned, minlength=len(pieces))[every]
    judged = count >= SEEN
    common = np.log(np.where(count > 0, count, np.nan) / count.sum())
    prior, bias = (head.weight @ mu)[every], head.bias[every]
    prior, bias = (each - each[judged].sum() / max(judged.sum(), 1) for each in (prior, bias))
    correlation = slope = level = np.nan
    if judged.sum() > 2:
        slope, level = np.polyfit(common[judged], (prior + bias)[judged], 1)
        correlation = np.corrcoef(common[judged], (prior + bias)[judged])[0, 1]
    excess = np.where(judged, prior + bias - slope * common - level, np.nan)
    columns = {
        "prior": (prior, "mean hidden state part of a logit", "nat"),
        "bias": (bias, "output bias", "nat"),
        "log_unigram": (common, "log-frequency in training", "nat"),
        "excess": (excess, "bias and prior beyond frequency", "nat"),
        "norm": (np.linalg.norm(head.weight, axis=1)[every], "norm of the head's row", "1"),
        "count": (count, "times learned", "token"),
    }
    data = {name: variable("vocabulary", *column) for name, column in columns.items()}
    classes = np.array(TOKEN_CLASSES)[class_scheme(sample.tokenizer).base]
    coords = {"piece": ("vocabulary", list(pieces)), "token_class": ("vocabulary", classes)}
    attrs = {"correlation": float(correlation), "slope": float(slope), "reference": about}
    return check(xr.Dataset(data, coords=coords, attrs=attrs | {"judged": int(judged.sum())}))


DIAGNOSTIC = Diagnostic(tier="pass", measure=unigram_prior, sites=("final_norm",))
