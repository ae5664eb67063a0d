"""Continue a prompt, greedily or by sampling."""

import math
from collections.abc import Iterator

import torch
from torch import nn

from workbench.folder import InputError
from workbench.text import Tokenizer


def generate_ids(
    model: nn.Module,
    prompt: list[int],
    *,
    n_token: int,
    sequence_length: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    vocab_size: int | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[int]:
    """Yield `n_token` ids, each predicted from the latest `sequence_length` ids.

    Parameters
    ----------
    prompt : list of int
        At least one id.
    temperature : float
        0: the most probable id; otherwise ids are drawn from logits / temperature.
    top_k : int, optional
        Draw among the `top_k` most probable only.
    vocab_size : int, optional
        Choose among this many ids only: a model may have more than its tokenizer.
    generator : torch.Generator, optional
        Source of the draws.
    """
    device = next(model.parameters()).device
    ids = list(prompt)
    for _ in range(n_token):
        context = torch.tensor([ids[-sequence_length:]], device=device)
        with torch.inference_mode():
            logits = model(context)[0, -1, :vocab_size].float().cpu()
        ids.append(_draw(logits, temperature, top_k, generator))
        yield ids[-1]


def _draw(
    logits: torch.Tensor, temperature: float, top_k: int | None, generator: torch.Generator | None
) -> int:
    """Choose one id from logits (V,)."""
    if temperature == 0:
        return int(logits.argmax())
    logits = logits / temperature
    if top_k is not None and top_k < len(logits):
        logits = logits.masked_fill(logits < logits.topk(top_k).values[-1], -torch.inf)
    return int(torch.multinomial(logits.softmax(dim=-1), 1, generator=generator))


def generate(
    model: nn.Module,
    tokenizer: Tokenizer,
    prompt: str,
    *,
    n_token: int = 64,
    sequence_length: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    seed: int = 0,
) -> str:
    """Return the continuation of a text prompt; it ends early at a document boundary.

    Raises
    ------
    InputError
        If a sampling setting is out of range.
    """
    if n_token < 1 or not 0 <= temperature < math.inf or (top_k is not None and top_k < 1):
        raise InputError(
            "generation settings",
            expected="tokens >= 1, temperature >= 0, top_k >= 1",
            found=f"tokens {n_token}, temperature {temperature}, top_k {top_k}",
            remedy="Change the setting.",
        )
    generator = torch.Generator().manual_seed(seed)
    start = [tokenizer.bos, *tokenizer.encode(prompt).tolist()]
    new: list[int] = []
    for token in generate_ids(
        model,
        start,
        n_token=n_token,
        sequence_length=sequence_length,
        temperature=temperature,
        top_k=top_k,
        vocab_size=tokenizer.vocab_size,
        generator=generator,
    ):
        if token == tokenizer.bos:
            break
        new.append(token)
    # Decoded together: a tokenizer may drop the space that begins a text.
    return tokenizer.decode([*start, *new])[len(tokenizer.decode(start)) :]
