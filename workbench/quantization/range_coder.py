"""Range-code integer matrices: frequencies are learned on the way, by writer and reader alike.

The magnitude of a code is coded in a *context*: the level of what is expected there, which is the
mean magnitude of the row (sent) times how the column has run so far (known to both sides). A
context begins as a geometric distribution and counts what it meets, through all matrices of a
model; where large codes are expected, their low bits are sent as they are. Only IEEE additions,
multiplications and divisions enter, so every machine decodes the same.

References
----------
.. [1] Bamler, constriction, 2022, https://bamler-lab.github.io/constriction/
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from constriction import stream
from numpy.typing import NDArray

N_SYMBOL = 48  # magnitudes below the last are coded as they are; the last says that more follows
THIRD = 1.2599210498948732  # third of an octave
LOWEST = 2.0**-8  # expected magnitude of the first context
N_CONTEXT = 49  # thirds of an octave from there
PRIOR = 64.0  # symbols that the first guess of a context is worth
TRUST = 2.0  # rows that the first guess of a column, the mean of its row, is worth
MANY = 12.0  # expected magnitude from which low bits are as good as random
RATE = 2.0**20  # symbols after which counts are halved, so that they stay exact and can move on
Integers = NDArray[np.int64]


def _borders() -> NDArray[np.float64]:
    """Return what separates contexts."""
    found = [LOWEST]
    while len(found) < N_CONTEXT - 1:
        found.append(found[-1] * THIRD)
    return np.array(found)


def _low_bits() -> Integers:
    """Return how many low bits of a magnitude each context leaves out of its table."""
    found = np.zeros(N_CONTEXT, dtype=np.int64)
    for octave in range(1, 32):
        found[1:] += _borders() >= MANY * 2.0 ** (octave - 1)
    return np.concatenate([found, np.zeros_like(found)])


def _first_guess() -> NDArray[np.float64]:
    """Return geometric counts, (context, symbol), with the mean that the context expects."""
    mean = (
        np.append(_borders(), _borders()[-1] * THIRD)[:, None]
        / 2.0 ** _low_bits()[:N_CONTEXT, None]
    )
    ratio = np.broadcast_to(mean / (1 + mean), (N_CONTEXT, N_SYMBOL))
    powers = np.cumprod(np.concatenate([1 - ratio[:, :1], ratio[:, 1:]], axis=1), axis=1)
    guess = PRIOR * powers / powers.sum(axis=1, keepdims=True)
    guess = (np.round(guess * 4096) + 1) / 4096  # the same whatever order a machine sums in
    return np.concatenate([guess, guess])  # of matrices, and of other numbers


BORDERS = _borders()
LOW_BITS = _low_bits()


class Coder:
    """One stream of integers, written or read by the same calls.

    Parameters
    ----------
    words : (word,) uint32 array, optional
        A stream to read; without it one is written.
    """

    def __init__(self, words: NDArray[np.uint32] | None = None) -> None:
        queue = stream.queue
        self._queue: Any = queue.RangeEncoder() if words is None else queue.RangeDecoder(words)
        self._counts = _first_guess()
        self.bits = 0.0  # ideal length of what has passed

    def words(self) -> NDArray[np.uint32]:
        """Return what was written."""
        return np.asarray(self._queue.get_compressed())

    def _uniform(self, values: Integers | None, *, size: int, count: int) -> Integers:
        """Code values that are all as likely, below `size`."""
        if count == 0:
            return np.zeros(0, dtype=np.int64)
        model = stream.model.Uniform(size)
        self.bits += count * float(np.log2(size))
        if values is None:
            return np.asarray(self._queue.decode(model, count), dtype=np.int64)
        self._queue.encode(values.astype(np.int32), model)
        return values

    def magnitudes(self, values: Integers | None, context: Integers) -> Integers:
        """Code numbers from 0 on, (n,), each in its context; None reads them."""
        table, low = self._counts[context], LOW_BITS[context]
        model = stream.model.Categorical(perfect=False)
        if values is None:
            symbols = np.asarray(self._queue.decode(model, table), dtype=np.int64)
        else:
            symbols = np.minimum(values >> low, N_SYMBOL - 1)
            self._queue.encode(symbols.astype(np.int32), model, table)
        chosen = table[np.arange(len(symbols)), symbols] / table.sum(axis=1)
        self.bits -= float(np.log2(chosen).sum())
        np.add.at(self._counts, (context, symbols), 1.0)
        full = self._counts.sum(axis=1) > RATE
        self._counts[full] *= 0.5
        found, rest = symbols.copy(), np.flatnonzero(symbols == N_SYMBOL - 1)
        more = None if values is None else (values >> low)[rest] - (N_SYMBOL - 1)
        found[rest] += self._beyond(more, len(rest))
        found <<= low
        for count in np.unique(low[low > 0]):
            here, size = np.flatnonzero(low == count), 1 << int(count)
            part = None if values is None else values[here] % size
            found[here] += self._uniform(part, size=size, count=len(here))
        return found

    def _beyond(self, values: Integers | None, count: int) -> Integers:
        """Code what exceeds the table: how many bits it has, then the bits."""
        widths = None if values is None else np.frexp(values.astype(float))[1].astype(np.int64)
        widths = self._uniform(widths, size=32, count=count)
        found = np.zeros(count, dtype=np.int64)
        for at, width in enumerate(widths):
            for low in range(0, int(width), 16):
                size = 1 << min(16, int(width) - low)
                part = None if values is None else (values[at : at + 1] >> low) % size
                found[at] |= int(self._uniform(part, size=size, count=1)[0]) << low
        return found

    def signs(self, negative: Integers | None, count: int) -> Integers:
        """Code signs, 1 where negative."""
        return self._uniform(negative, size=2, count=count)

    def numbers(self, values: Integers | None, count: int) -> Integers:
        """Code whole numbers that follow one another closely, such as levels of scales."""
        found = np.zeros(count, dtype=np.int64)
        before, spread = 0, 1.0
        for at in range(count):
            context = N_CONTEXT + np.searchsorted(BORDERS, [spread])
            step = None if values is None else int(values[at]) - before
            folded = None if step is None else np.array([2 * abs(step) - (step < 0)])
            code = int(self.magnitudes(folded, context)[0])
            before += -((code + 1) // 2) if code % 2 else code // 2
            found[at] = before
            spread = 0.875 * spread + 0.125 * code
        return found


def contexts(magnitudes: Integers) -> Integers:
    """Return the context in which each magnitude of a matrix, (R, C), is coded."""
    expected = _expected(np.searchsorted(BORDERS, magnitudes.mean(axis=1)))
    before = np.cumsum(magnitudes, axis=0) - magnitudes
    base = np.cumsum(expected) - expected
    return np.searchsorted(BORDERS, _likely(before, base[:, None], expected[:, None]))


def _expected(levels: Integers) -> NDArray[np.float64]:
    """Return the mean magnitude that each level of a row stands for."""
    return np.append(BORDERS, BORDERS[-1] * THIRD)[levels]


def _likely(run: Any, base: Any, here: Any) -> NDArray[np.float64]:
    """Expect of a column what its row says times how the column has run so far."""
    return np.asarray((run + TRUST * here) / (base + TRUST * here) * here)


def code_matrix(coder: Coder, shape: Sequence[int], codes: Integers | None) -> Integers:
    """Write a matrix of codes (R, C), or read one of that shape where `codes` is None."""
    n_row, n_column = shape
    mean = None if codes is None else np.abs(codes).mean(axis=1)
    levels = None if mean is None else np.searchsorted(BORDERS, mean).astype(np.int64)
    levels = coder.numbers(levels, n_row)
    if ((levels < 0) | (levels >= N_CONTEXT)).any():
        raise ValueError("a mean magnitude that is none")
    expected = _expected(levels)
    run, base = np.zeros(n_column), 0.0
    found = np.zeros((n_row, n_column), dtype=np.int64)
    for row in range(n_row):
        here = expected[row]
        context = np.searchsorted(BORDERS, _likely(run, base, here))
        mine = None if codes is None else np.abs(codes[row])
        found[row] = coder.magnitudes(mine, context)
        there = np.flatnonzero(found[row])
        sign = None if codes is None else (codes[row, there] < 0).astype(np.int64)
        negative = coder.signs(sign, len(there))
        run, base = run + found[row], base + here
        found[row, there] *= 1 - 2 * negative
    return found
