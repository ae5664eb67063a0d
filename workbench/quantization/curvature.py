"""How much the loss bends along each weight: what quantisation may cost, and where.

The second-order change of the loss when a matrix W moves by D is modelled as
``1/2 sum_r output_r d_r input d_r^T`` with rows d_r of D: `input` is the mean outer product of what
the matrix multiplies, `output` the mean squared gradient of what it returns, at targets drawn from
the model itself (the Fisher information, not the training loss). A tied embedding has two roles,
and both count.

References
----------
.. [1] Martens and Grosse, Optimizing Neural Networks with Kronecker-factored Approximate
   Curvature, 2015, https://arxiv.org/abs/1503.05671
"""

from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workbench.model import Network, record

TOKENS_PER_PASS = 2048


@dataclass(frozen=True, kw_only=True)
class Curvature:
    """Two factors of the curvature of one matrix, each a mean over tokens, in float64."""

    input: Tensor  # (C, C)
    output: Tensor  # (R,) [nat / unit^2]
    tokens: int

    def cost(self, change: Tensor) -> float:
        """Predict what a change of the matrix, (R, C), adds to the loss [nat/token]."""
        moved = change.double()
        return float(0.5 * (((moved @ self.input) * moved).sum(dim=1) * self.output).sum())


def curvature(
    model: Network, rows: Tensor, *, scored: Tensor | None = None, seed: int = 0
) -> Mapping[str, Curvature]:
    """Measure the curvature of every matrix of a model.

    Parameters
    ----------
    model : Network
        Left as it was found.
    rows : (B, T) int64 tensor
        Token ids to calibrate on.
    scored : (B, T) bool tensor, optional
        Positions whose prediction counts; what stands behind the last of a row is padding. By
        default all.
    seed : int
        Of the targets that are drawn from the model.

    Returns
    -------
    mapping
        By the name of the parameter; of a matrix that is visited twice, inputs are averaged over
        both visits and outputs are summed.
    """
    taken = _Sums()
    scored = torch.ones_like(rows, dtype=torch.bool) if scored is None else scored
    names = {id(each): name for name, each in model.named_parameters()}
    generator = torch.Generator(device=rows.device).manual_seed(seed)
    with ExitStack() as stack:
        for module in model.modules():
            if isinstance(module, nn.Linear) and names[id(module.weight)] != "lm_head.weight":
                hook = _linear_hook(taken, names[id(module.weight)])
                stack.callback(module.register_forward_hook(hook).remove)
        lookup = _lookup_hook(taken, model.config.vocab_size)
        stack.callback(model.tok_emb.register_forward_hook(lookup).remove)
        seen = stack.enter_context(record(model, ["final_norm"]))
        at_once = max(1, TOKENS_PER_PASS // rows.shape[1])
        for some, counted in zip(rows.split(at_once), scored.split(at_once), strict=True):
            taken.present = counted.flip(1).cumsum(1).flip(1) > 0
            with torch.enable_grad():
                _backward(model, some, counted, seen, taken, generator)
    return _finish(taken, model, int(scored.sum()))


class _Sums(dict[str, Tensor]):
    """Sums of batches, in float64 on the CPU, and which positions of the batch are no padding."""

    present: Tensor  # (B, T) bool

    def __init__(self) -> None:
        super().__init__()
        self.positions = Counter[str]()  # that are no padding, by what they were seen by

    def add(self, name: str, value: Tensor) -> None:
        value = value.double().cpu()
        self[name] = self[name] + value if name in self else value


def _linear_hook(taken: _Sums, name: str):  # type: ignore[no-untyped-def]
    """Sum both factors of a linear layer, forwards and, when they come, backwards."""

    def forward(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        x = given[0].detach()[taken.present].float()
        taken.add(f"{name}/input", x.T @ x)
        taken.positions[f"{name}/input"] += len(x)
        out.register_hook(lambda g: taken.add(f"{name}/output", g.flatten(0, -2).square().sum(0)))

    return forward


def _lookup_hook(taken: _Sums, n_token: int):  # type: ignore[no-untyped-def]
    """Sum the curvature of the rows of an embedding as they are looked up."""

    def forward(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        ids = given[0].flatten().cpu()

        def backward(gradient: Tensor) -> None:
            g = gradient.flatten(0, -2).float().cpu()
            taken.add("lookup/input", g.T @ g)
            by_token = torch.zeros(n_token, dtype=torch.float64)
            taken.add("lookup/output", by_token.index_add_(0, ids, g.double().square().sum(dim=1)))

        out.register_hook(backward)

    return forward


def _backward(
    model: Network,
    rows: Tensor,
    scored: Tensor,
    seen: Mapping[str, Tensor],
    taken: _Sums,
    generator: torch.Generator,
) -> None:
    """Run one batch forwards, draw its targets, and run it backwards."""
    hidden = model.hidden(rows)
    states = seen["final_norm"].detach()[scored].float()
    taken.add("head/input", states.T @ states)
    # The logits before bias and softcap, whose gradient is that of the head's own output.
    raw = F.linear(hidden, model.head_weight.to(hidden.dtype))
    raw.register_hook(lambda g: taken.add("head/output", g.flatten(0, -2).square().sum(0)))
    bias = model.output_bias
    logits = model.capped(raw if bias is None else raw + bias)[scored].float()
    drawn = torch.multinomial(logits.detach().softmax(dim=-1), 1, generator=generator)
    loss = F.cross_entropy(logits, drawn[:, 0], reduction="sum")
    # Gradients of the parameters are asked for and dropped: hooks have what is needed.
    torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)


def _finish(taken: _Sums, model: Network, tokens: int) -> dict[str, Curvature]:
    """Turn sums into means by parameter, and join the two roles of a tied embedding.

    Gradients are summed over all positions, and visits, for each that is scored; what a block
    multiplies is a mean over these, or their product would count them twice.
    """
    mean = {name: value / taken.positions.get(name, tokens) for name, value in taken.items()}
    # Both factors of a lookup hold the gradient; together they must hold it once.
    mean["lookup/input"] = mean["lookup/input"] / mean["lookup/input"].trace()
    roles = dict.fromkeys(name.rsplit("/", 1)[0] for name in mean)  # as they were met
    found = {
        role: Curvature(input=mean[f"{role}/input"], output=mean[f"{role}/output"], tokens=tokens)
        for role in roles
    }
    lookup, head = found.pop("lookup"), found.pop("head")
    if not model.config.tie_embeddings:
        return found | {"tok_emb.weight": lookup, "lm_head.weight": head}
    return found | {"tok_emb.weight": joined(head, lookup)}


def joined(one: Curvature, two: Curvature) -> Curvature:
    """Approximate the sum of two curvatures of one matrix by a single product of factors.

    The factors are those of the sum of the products' marginals; exact where one is zero, and where
    the rows of both are in proportion.
    """
    weight = float(two.output.sum() / one.output.sum()) if one.output.sum() > 0 else 1.0
    if weight == 0:
        return one
    first, second = float(one.input.trace()), weight * float(two.input.trace())
    share = first / (first + second)
    rows = share * one.output + (1 - share) * two.output / weight
    return Curvature(input=one.input + weight * two.input, output=rows, tokens=one.tokens)
