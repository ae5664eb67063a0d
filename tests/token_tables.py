"""Annotated token tables drawn at random, for what is computed from them."""

import numpy as np
import pandas as pd
import xarray as xr

from workbench.result import check, variable
from workbench.text import TOKEN_CLASSES

UNITS = {"nll": "nat", "entropy": "nat", "excess": "bit", "bytes": "byte"}
ABSENT = TOKEN_CLASSES.index("byte")
CONTEXT = 32


def make_table(*, n_token=4000, n_document=25, seed=0, absent=(ABSENT,)):
    """Documents differ, control tokens have no bytes, and the first is right as often as it says.

    The excess has no mean: a reference as good as the model.
    """
    rng = np.random.default_rng(seed)
    kinds = np.array([k for k in range(len(TOKEN_CLASSES)) if k not in absent])
    kind = rng.choice(kinds, n_token)
    document = np.sort(rng.integers(0, n_document, n_token))
    hard = rng.normal(0, 0.4, n_document)[document]
    ids, sure = rng.integers(0, 60, n_token), rng.beta(0.8, 1.2, n_token)
    hit = rng.random(n_token) < sure
    nll = rng.exponential(1 + 0.3 * kind) * np.exp(hard)
    columns = {
        "id": ids,
        "nll": nll,
        "entropy": nll * rng.exponential(1, n_token),
        "rank": np.where(hit, 1, rng.integers(2, 50, n_token)),
        "top1": np.where(hit, ids, (ids + rng.integers(1, 59, n_token)) % 60),
        "top1_probability": sure,
        "bytes": np.where(kind == 0, 0, rng.integers(1, 7, n_token)),
        "token_class": kind,
        "document": document,
        "group": document,
        "position": np.arange(n_token) % CONTEXT,
        "repeated": rng.random(n_token) < 0.4,
        "excess": rng.normal(0, 1, n_token),
        "decile": ids // 7,
        "offset": np.arange(1, n_token + 1),
        "top1_class": rng.choice(kinds, n_token),
        "opens_sentence": (kind == TOKEN_CLASSES.index("word_start")) & (rng.random(n_token) < 0.2),
    }
    return as_table(pd.DataFrame(columns))


def as_table(frame):
    data = {
        name: variable("token", frame[name].to_numpy().copy(), name, UNITS.get(name, "1"))
        for name in frame
    }
    attrs = {"protocol": "full", "context": CONTEXT, "reference": "counting: drawn at random"}
    return check(xr.Dataset(data, attrs=attrs))


def frame_of(table):
    return pd.DataFrame({name: table[name].values for name in table.data_vars})
