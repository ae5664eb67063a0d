"""Depth recurrence: some blocks run several times in a row, with the same weights.

Of five blocks, ``first=1, last=2, passes=2`` runs 0 1 2 1 2 3 4: seven *visits*. A network can take
fewer passes than it has, as it does before a late switch; the last are then left out, so that a
visit keeps its number, and with it its own learned mixes.

References
----------
.. [1] Dehghani et al., Universal Transformers, 2018, https://arxiv.org/abs/1807.03819
"""

from dataclasses import dataclass

MOST_PASSES = 64  # a shape is read from files that a stranger wrote


@dataclass(frozen=True, kw_only=True)
class RecurrenceConfig:
    """Which blocks run again, and how often."""

    first: int  # block
    last: int  # block, itself among them
    passes: int = 2  # of these blocks, the first included

    def __post_init__(self) -> None:
        given = (self.first, self.last, self.passes)
        if any(type(each) is not int for each in given) or not 0 <= self.first <= self.last:
            raise ValueError(f"blocks must be whole numbers, 0 <= first <= last, got {given}")
        if not 1 <= self.passes <= MOST_PASSES:
            raise ValueError(f"passes must be from 1 to {MOST_PASSES}, got {self.passes}")

    def blocks(self, n_layer: int) -> tuple[int, ...]:
        """Return the block of every visit, in order of execution."""
        again = self.passes * [*range(self.first, self.last + 1)]
        return (*range(self.first), *again, *range(self.last + 1, n_layer))

    def visits_after(self, passes: int) -> range:
        """Return the visits of all passes but the first so many."""
        width = self.last + 1 - self.first
        return range(self.first + passes * width, self.first + self.passes * width)
