"""What is minimised: cross-entropy, and what may be added to it.

An objective maps (model, inputs, targets) to a loss summed over the targets of a batch [nat], or to
a pair: that loss, and the plain cross-entropy. The first is trained, the second reported, so that
runs with different objectives compare. Whoever trains divides both by the number of counted
targets, whatever their weights: weights whose mean over the text is not 1 scale the gradient.

References
----------
.. [1] Szegedy et al., Rethinking the Inception Architecture for Computer Vision, 2015,
   https://arxiv.org/abs/1512.00567 (label smoothing).
.. [2] Chowdhery et al., PaLM, 2022, https://arxiv.org/abs/2204.02311 (z-loss).
.. [3] Gloeckle et al., Better & Faster Large Language Models via Multi-token Prediction, 2024,
   https://arxiv.org/abs/2404.19737
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workbench.folder import InputError, check_known, made
from workbench.text import IGNORED, TOKEN_CLASSES, Tokenizer, class_scheme, classify

Objective = Callable[[nn.Module, Tensor, Tensor], Tensor | tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """What is added to the cross-entropy; by default nothing."""

    z_loss: float = 0.0  # times the square of log sum exp(logits), which it keeps near 0
    label_smoothing: float = 0.0  # share of every target that is spread over the vocabulary
    class_weights: Mapping[str, float] = field(default_factory=dict)  # by token class; others 1
    future_tokens: int = 0  # tokens after the next that are predicted too, in training alone
    future_weight: float = 0.3  # of the mean of their losses

    def __post_init__(self) -> None:
        by_class = self.class_weights if isinstance(self.class_weights, Mapping) else {"?": 1.0}
        check_known(by_class, TOKEN_CLASSES, what="token class")
        numbers = self.z_loss, self.label_smoothing, self.future_weight, *by_class.values()
        is_valid = all(type(each) in (int, float) and 0 <= each < math.inf for each in numbers)
        is_valid &= type(self.future_tokens) is int and self.future_tokens >= 0
        if not is_valid or self.label_smoothing >= 1:
            expected = "numbers from 0 (write 0.001), label_smoothing below 1, future_tokens whole"
            remedy = "Change the value."
            raise InputError("objective", expected=expected, found=str(self), remedy=remedy)


def objective_config(**settings: Any) -> ObjectiveConfig:
    """Make the configuration from plain values, naming the nearest key for an unknown one."""
    return made(ObjectiveConfig, settings, what="objective")


def next_token_loss(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Return the summed cross-entropy [nat] of targets (B, T), ignored positions left out."""
    return token_losses(model(inputs), targets).sum()


def token_losses(logits: Tensor, targets: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Return the cross-entropy [nat] of every target (B, T), at least in float32.

    Parameters
    ----------
    logits : (B, T, V) tensor
    targets : (B, T) int64 tensor
        The loss is 0 where they are `IGNORED`.
    smoothing : float
        Share of a target that is spread evenly over all V tokens, itself among them.
    """
    flat, wanted = _precise(logits).flatten(0, 1), targets.flatten()
    losses = F.cross_entropy(
        flat, wanted, ignore_index=IGNORED, reduction="none", label_smoothing=smoothing
    )
    return losses.view_as(targets)


class CrossEntropy(nn.Module):
    """Cross-entropy with what a configuration adds to it.

    The prediction of later tokens has weights of its own, ``mtp_heads.0`` and on, one (C, C) matrix
    a token before the head that the model has. They begin as the identity, get gradients from the
    first update, and are no part of the model, so that no checkpoint or export has them.

    Parameters
    ----------
    config : ObjectiveConfig
    d_model : int
        Channels C of the model's hidden state.
    tokenizer : Tokenizer
        Tells the class of a target, by itself and by the token before it.
    token_weights : (V,) tensor, optional
        Weight of a target by its id, times that of its class.
    """

    weights: Tensor  # (2, V), the second row after a token that lets a word begin
    opens: Tensor  # (V,) which tokens do

    def __init__(
        self,
        config: ObjectiveConfig,
        *,
        d_model: int,
        tokenizer: Tokenizer,
        token_weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.mtp_heads = nn.ParameterList(torch.eye(d_model) for _ in range(config.future_tokens))
        self.is_weighted = bool(config.class_weights) or token_weights is not None
        if self.is_weighted:
            scheme, ids = class_scheme(tokenizer), np.arange(tokenizer.vocab_size)
            pair = (replace(scheme, opens=np.full(len(ids), after)) for after in (False, True))
            classes = np.stack([classify(each, ids, ids) for each in pair])
            by_class = np.array([config.class_weights.get(name, 1.0) for name in TOKEN_CLASSES])
            weights = torch.from_numpy(by_class[classes]).float()
            weights = weights if token_weights is None else weights * token_weights
            self.register_buffer("weights", weights, persistent=False)
            self.register_buffer("opens", torch.from_numpy(scheme.opens), persistent=False)

    def forward(self, model: Any, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss to train and the plain cross-entropy, both summed [nat].

        With heads for later tokens the model must have ``hidden`` and ``head``. A later token that
        lies beyond its row, or is not counted as a target, is not predicted.
        """
        if not len(self.mtp_heads):
            return self.summed(model(inputs), inputs, targets)
        hidden = model.hidden(inputs)
        trained, plain = self.summed(model.head(hidden), inputs, targets)
        share = self.config.future_weight / len(self.mtp_heads)
        for ahead, matrix in enumerate(self.mtp_heads, 1):
            logits = model.head(F.linear(hidden[:, :-ahead], matrix.to(hidden.dtype)))
            later, _ = self.summed(logits, inputs[:, ahead:], targets[:, ahead:])
            trained = trained + share * later
        return trained, plain

    def summed(self, logits: Tensor, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return both losses of logits (B, T, V) for targets (B, T) that follow inputs (B, T)."""
        config = self.config
        trained = plain = token_losses(logits, targets)
        if config.label_smoothing:
            trained = token_losses(logits, targets, smoothing=config.label_smoothing)
        if config.z_loss:
            square = _precise(logits).logsumexp(-1).square()
            trained = trained + config.z_loss * square * (targets != IGNORED)
        if self.is_weighted:
            trained = trained * self.weights[self.opens[inputs].long(), targets.clamp(min=0)]
        return trained.sum(), plain.detach().sum()


def _precise(logits: Tensor) -> Tensor:
    """Return logits in float32, or as they are where they are more precise."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
