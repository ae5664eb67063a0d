"""A reference that is not a network: what counting can predict of the same tokens.

An interpolated Kneser-Ney model of the training split, mixed with two caches over the context that
the network sees. Its loss on a token says how much of the network's loss is not hard in itself.
"""

from collections.abc import Callable

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from workbench.result import check, variable
from workbench.text import Data, Tokens

ORDER = 5
FITTED = 2**21  # training tokens counted at most
HELD_OUT = 0.1  # of them, to fit the weights of the mixture on
ROUNDS = 30  # of expectation maximisation, of three weights
PARTS = ("n-gram", "words of the context", "pairs of the context")
LEAST_DISCOUNT = 0.1  # something is always left to shorter histories

Model = Callable[..., NDArray[np.float64]]


def ngrams(ids: NDArray[np.integer], *, vocab_size: int, order: int = ORDER) -> Model:
    """Count a text into an interpolated Kneser-Ney model, which sums to 1 over the vocabulary.

    Shorter histories count the different tokens before them in place of occurrences; below all is
    the uniform distribution. Each length has the discount ``n1 / (n1 + 2 n2)``.

    Parameters
    ----------
    ids : (token,) int
        Text to count, `order` tokens at least.
    vocab_size : int
        Number of ids.
    order : int
        Longest n-gram.

    Returns
    -------
    callable
        ``model(text, seen)`` gives each id of a text its probability after those before it, of
        which `seen` (token,) may be used; (token,).

    References
    ----------
    .. [1] Chen and Goodman, An empirical study of smoothing techniques for language modeling,
       Computer Speech and Language 13, 1999.
    """
    text = np.asarray(ids, dtype=np.int64)
    counted: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    history = np.zeros(len(text), dtype=np.int64)
    for length in range(order):
        key = history * vocab_size + text[length:]
        keys, first, gram = np.unique(key, return_index=True, return_inverse=True)
        if counted:  # without its first token, a new n-gram is a shorter one after a new token
            shorter, of_text = counted[-1]
            counted[-1] = shorter, np.bincount(of_text[1:][first], minlength=len(shorter))
        counted.append((keys, gram))
        history = gram[:-1]
    counted[-1] = keys, np.bincount(gram)
    n_history = [1, *(len(keys) for keys, _ in counted)]
    levels = [_level(*each, vocab_size, n) for each, n in zip(counted, n_history, strict=False)]

    def model(text: NDArray[np.int64], seen: NDArray[np.int64]) -> NDArray[np.float64]:
        probability = np.full(len(text), 1 / vocab_size)
        history = np.zeros(len(text), dtype=np.int64)
        for length, (keys, part, left) in enumerate(levels):
            gram = _find(keys, np.where(history < 0, -1, history * vocab_size + text))
            may = seen >= length
            probability *= left[np.where(may, history, -1)]
            probability += part[np.where(may, gram, -1)]
            history = np.append(np.int64(-1), gram[:-1])
        return probability

    return model


def _level(
    keys: NDArray[np.int64], count: NDArray[np.int64], vocab_size: int, n_history: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Discount one length: keys, the part of each, and what each history leaves to shorter ones.

    The last part, 0, and the last rest, 1, answer what was not seen.
    """
    history, once, twice = keys // vocab_size, (count == 1).sum(), (count == 2).sum()
    discount = max(LEAST_DISCOUNT, once / max(once + 2 * twice, 1))
    total = np.maximum(np.bincount(history, weights=count, minlength=n_history), 1)
    kinds = np.bincount(history, weights=count > 0, minlength=n_history)
    left = np.where(kinds > 0, discount * kinds / total, 1)
    part = np.maximum(count - discount, 0) / total[history]
    return keys, np.append(part, 0.0), np.append(left, 1.0)


def _find(keys: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where each wanted key stands among sorted keys, -1 where it does not."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, at, -1)


def offsets(table: xr.Dataset, tokens: Tokens) -> NDArray[np.int64]:
    """Return where in the ids of its split each row of a token table stands, (token,).

    Parameters
    ----------
    table : Dataset
        Token table of `evaluation.token_table`.
    tokens : Tokens
        The split it was made of.
    """
    if tokens.answers is None:
        return np.arange(1, 1 + table.sizes["token"])  # rows cut without gaps, scored once
    begin: NDArray[np.int64] = tokens.starts[table.document.values]
    return begin + 1 + table.position.values


def reference(table: xr.Dataset, data: Data, *, fitted: int = FITTED) -> xr.Dataset:
    """Predict the tokens of a table by counting: the training split, and the context before each.

    Three predictions are mixed: an interpolated 5-gram model of the first `fitted` training
    tokens, the shares of tokens in the context, and what followed the same token in the context.
    The context is exactly what the network saw of the text: `position` + 1 tokens. The weights of
    the mixture are fitted on the last tenth of the same training tokens, with a model counted on
    the rest; no token of the table takes part in them.

    Where the network loses more than this reference (a positive excess), bits lie that need no
    understanding of the text to win. Where it loses less, the network has learnt what counting
    cannot tell, and nothing is said about how much more there is to win.

    Parameters
    ----------
    table : Dataset
        Token table of the validation split of `data`.
    data : Data
        The text, tokenised.
    fitted : int
        Training tokens counted at most.

    Returns
    -------
    Dataset
        ``nll`` [nat] (token); ``weight`` of each component; attr ``reference`` says what it is.
    """
    ids, size = data.train.ids[:fitted], data.tokenizer.vocab_size
    cut = int(len(ids) * (1 - HELD_OUT))
    held = np.arange(cut + 1, len(ids))
    seen = (held - cut - 1) % int(table.attrs["context"]) + 1
    weight = _weights(_parts(ngrams(ids[:cut], vocab_size=size), ids, held, seen, size))
    at, seen = offsets(table, data.validation), table.position.values.astype(np.int64) + 1
    scored = _parts(ngrams(ids, vocab_size=size), data.validation.ids, at, seen, size)
    told = ", ".join(f"{part} {share:.0%}" for part, share in zip(PARTS, weight, strict=True))
    made = {
        "nll": variable("token", -np.log(scored @ weight), "loss of the reference", "nat"),
        "weight": variable("component", weight, "weight in the mixture"),
    }
    about = f"counting: {ORDER}-grams of {len(ids):,} training tokens and the context ({told})"
    return check(xr.Dataset(made, coords={"component": list(PARTS)}, attrs={"reference": about}))


def _weights(parts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fit the weights of a mixture (token, component) by expectation maximisation."""
    weight = np.full(parts.shape[1], 1 / parts.shape[1])
    for _ in range(ROUNDS):
        joint = parts * weight
        weight = (joint / joint.sum(axis=1, keepdims=True)).mean(axis=0)
    return weight


def _parts(
    model: Model,
    ids: NDArray[np.int32],
    offset: NDArray[np.int64],
    seen: NDArray[np.int64],
    vocab_size: int,
) -> NDArray[np.float64]:
    """Return what each of `PARTS` gives the ids at `offset` from the `seen` before, (token, 3)."""
    text, begin = ids.astype(np.int64), offset - seen
    room = np.zeros(len(text), dtype=np.int64)
    room[offset] = seen
    after = np.append(np.int64(-1), text[:-1])  # the token that each stands after
    words = _earlier(text, offset, begin) / seen
    times = _earlier(after, offset, begin + 1)
    pairs = _earlier(after * vocab_size + text, offset, begin + 1)
    follows = np.where(times > 0, pairs / np.maximum(times, 1), words)
    return np.stack([model(text, room)[offset], words, follows], axis=1)


def _earlier(
    keys: NDArray[np.int64], offset: NDArray[np.int64], begin: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Count how often the key at each offset occurs from `begin` up to it."""
    _, key = np.unique(keys, return_inverse=True)
    placed = np.sort(key * len(keys) + np.arange(len(keys)))
    own = key[offset] * len(keys)
    return np.searchsorted(placed, own + offset) - np.searchsorted(placed, own + begin)
