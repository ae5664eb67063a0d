"""Whether the output head can emit a token at all, whatever the hidden state.

With fewer channels than tokens, the row of a token may lie inside the convex hull of the others:
then no hidden state makes it win, and no training of the trunk can.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from workbench.diagnostics.branch import Head

LEAD = 1e-3  # logits by which a token must win [nat]
RIVALS = 64  # rivals added to the problem at a time
TOLERANCE = 1e-9


def reachable(
    head: Head, targets: NDArray[np.int64], *, radius: float, won: NDArray[np.int64] | None = None
) -> NDArray[np.bool_]:
    """Tell which tokens some hidden state of norm up to `radius` makes the winner.

    Cheap tests come first: a token that has won is reachable, and so is one that wins in the
    direction of its own row. Otherwise the shortest hidden state that puts the token ahead of its
    rivals is found exactly, with more rivals until none is left ahead or no state is short enough.
    A linear program would answer the same with a box in place of the ball.

    Parameters
    ----------
    head : Head
        Output weight and bias.
    targets : (target,) int64
        Ids to be tested.
    radius : float
        Largest norm that a hidden state can have.
    won : int64 array, optional
        Ids that observed hidden states have made the winner.

    Returns
    -------
    (target,) bool
        The share that is True is the best coverage that any hidden states could reach.

    References
    ----------
    Lawson and Hanson, Solving Least Squares Problems, 1974, chapter 23 (least distance).
    Grivas et al., Low-rank softmax can have unargmaxable classes, 2022,
    https://arxiv.org/abs/2203.06462
    """
    known = set() if won is None else set(won.tolist())
    return np.array([each in known or _wins(head, each, radius) for each in targets.tolist()], bool)


def _wins(head: Head, target: int, radius: float) -> bool:
    """Search for a hidden state that makes one token win."""
    row = head.weight[target]
    length = np.linalg.norm(row)
    hidden = row * (radius / length) if length > 0 else row
    rivals: list[int] = []
    while True:
        lead = head.scores(hidden)[target] - head.scores(hidden)
        lead[[target, *rivals]] = np.inf
        order = np.argsort(lead)[:RIVALS]
        ahead = order[lead[order] < LEAD * (1 - TOLERANCE)]
        if not ahead.size:
            return True
        rivals += ahead.tolist()
        found = _shortest(
            radius * (row - head.weight[rivals]), head.bias[rivals] - head.bias[target] + LEAD
        )
        if found is None or np.linalg.norm(found) > 1 + TOLERANCE:
            return False
        hidden = radius * found


def _shortest(
    matrix: NDArray[np.float64], least: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """Return the shortest x with ``matrix @ x >= least``, or None if there is none."""
    system = np.vstack([matrix.T, least])
    goal = np.append(np.zeros(matrix.shape[1]), 1.0)
    weights, distance = nnls(system, goal, maxiter=100 * len(least))
    left = system @ weights - goal
    return None if distance**2 <= TOLERANCE else -left[:-1] / left[-1]
