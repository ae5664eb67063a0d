"""How large a network will be, known before it is made: parameters, cache, arithmetic."""

import torch

from workbench.model.config import ModelConfig
from workbench.model.network import Network

PLACES = {  # what a parameter's name holds, by the part that it belongs to
    "tok_emb.": "embedding",
    "lm_": "head",
    ".attn.c_": "attention",
    ".attn.proj.": "attention",
    ".mlp.": "feedforward",
}


def parameters_by_part(config: ModelConfig) -> dict[str, int]:
    """Count parameters by part, without allocating them.

    Returns
    -------
    dict of str to int
        ``embedding``, ``head`` (0 where it is the embedding), ``attention``, ``feedforward``, and
        ``control`` for all else: norms, gains, scales, mixes and what mechanisms add. The sum is
        `n_parameter`.

    Examples
    --------
    >>> parameters_by_part(ModelConfig())["feedforward"] == 9 * 2 * 512 * 1024
    True
    """
    count = dict.fromkeys([*PLACES.values(), "control"], 0)
    with torch.device("meta"):
        for name, parameter in Network(config).named_parameters():
            part = next((PLACES[place] for place in PLACES if place in name), "control")
            count[part] += parameter.numel()
    return count


def cache_bytes(config: ModelConfig, *, context: int, bytes_per_value: int = 2) -> int:
    """Count the bytes of keys and values kept while a text of `context` tokens is continued."""
    return 2 * len(config.visits) * config.d_key_value * context * bytes_per_value


def flops_per_token(
    config: ModelConfig,
    *,
    sequence_length: int,
    is_causal: bool = True,
    passes: int | None = None,
) -> float:
    """Count the floating-point operations that a forward and a backward pass need for a token.

    Six for each weight of a matrix each time that it multiplies, and ``12 d_query sequence_length``
    for the attention of a visit, of which a causal kernel needs half. What recomputation adds is
    not counted, so that a ratio to the arithmetic of a device is *model* FLOP utilisation.
    With `passes`, blocks that recur run so many times.

    References
    ----------
    .. [1] Chowdhery et al., PaLM, 2022, appendix B, https://arxiv.org/abs/2204.02311
    """
    count = parameters_by_part(config)
    head = "embedding" if config.tie_embeddings else "head"
    n_visit = len(config.visits)
    if passes and config.recurrence is not None:
        n_visit -= len(config.recurrence.visits_after(passes))
    inner = count["attention"] + count["feedforward"]
    weights = inner * n_visit / config.n_layer + count[head]
    attention = 12 * n_visit * config.d_query * sequence_length
    return 6.0 * weights + attention / (2 if is_causal else 1)
