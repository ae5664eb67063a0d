"""Continue a prompt, greedily or by sampling."""

import math
from collections.abc import Callable, Iterator
from itertools import islice, takewhile

import torch
from torch import nn

from workbench.folder import InputError
from workbench.text import Tokenizer


def generate_ids(
    model: nn.Module,
    prompt: list[int],
    *,
    sequence_length: int,
    choose: Callable[[torch.Tensor], int],
) -> Iterator[int]:
    """Yield ids without end, each chosen by the latest `sequence_length` ids.

    Parameters
    ----------
    prompt : list of int
        At least one id.
    choose : callable
        Chooses an id from logits (vocabulary,), such as `draw`.
    """
    device = next(model.parameters()).device
    ids = list(prompt)
    while True:
        context = torch.tensor([ids[-sequence_length:]], device=device)
        with torch.inference_mode():
            logits = model(context)[0, -1].float().cpu()
        ids.append(choose(logits))
        yield ids[-1]


def draw(
    logits: torch.Tensor,
    *,
    temperature: float = 0.0,
    top_k: int | None = None,
    generator: torch.Generator | None = None,
) -> int:
    """Choose one id.

    Parameters
    ----------
    logits : (vocabulary,) tensor
    temperature : float
        0: the most probable id; otherwise ids are drawn from logits / temperature.
    top_k : int, optional
        Draw among the `top_k` most probable only.
    generator : torch.Generator, optional
        Source of the draws.
    """
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
        wanted = "tokens >= 1, temperature >= 0, top_k >= 1"
        found = f"tokens {n_token}, temperature {temperature}, top_k {top_k}"
        where, remedy = "generation settings", "Change the setting."
        raise InputError(where, expected=wanted, found=found, remedy=remedy)
    generator = torch.Generator().manual_seed(seed)

    def choose(logits: torch.Tensor) -> int:
        known = logits[: tokenizer.vocab_size]  # a model may have more ids than its tokenizer
        return draw(known, temperature=temperature, top_k=top_k, generator=generator)

    start = [tokenizer.bos, *tokenizer.encode(prompt).tolist()]
    stream = generate_ids(model, start, sequence_length=sequence_length, choose=choose)
    new = takewhile(lambda token: token != tokenizer.bos, islice(stream, n_token))
    # Decoded together: a tokenizer may drop the space that begins a text.
    return tokenizer.decode([*start, *new])[len(tokenizer.decode(start)) :]
