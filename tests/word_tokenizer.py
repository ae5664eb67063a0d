"""A tokenizer whose ids are whole words, for tests that must know every id."""

import re
from collections.abc import Iterable, Sequence

import numpy as np

from workbench.text.vocabulary import Tokenizer

WORD = re.compile(r" ?[A-Za-z]+|.", re.DOTALL)


def word_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """Number the words of `texts` (with their leading space) in alphabetical order, after bos."""
    words = sorted({word for text in texts for word in WORD.findall(text)})
    numbers = {word: number for number, word in enumerate(words, start=1)}

    def encoder(text: str) -> Sequence[int]:
        return [numbers[word] for word in WORD.findall(text)]

    return Tokenizer(
        kind="bytes",
        pieces=("<bos>", *words),
        token_bytes=(b"", *(word.encode() for word in words)),
        boundary=np.arange(len(words) + 1) == 0,
        byte_fallback=np.zeros(len(words) + 1, dtype=bool),
        drops_leading_space=False,
        bos=0,
        model="\n".join(words).encode(),
        encoder=encoder,
    )
