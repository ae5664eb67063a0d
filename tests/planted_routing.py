"""Models whose answers are known: the last subject that a prompt names decides the hidden state."""

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn
from word_tokenizer import word_tokenizer

from workbench.model.network import untouched
from workbench.text.vocabulary import Tokenizer
from workbench.text.world import Record

SUBJECTS = {  # profile: subject and answer
    "owner": {"cup": "Mia", "pot": "Leo", "pan": "Ada", "jug": "Tom"},
    "colour": {"hat": "red", "cap": "blue", "tie": "green", "bag": "black"},
}
TEMPLATES = ("Tell of {} it is", "So what of {}? It is", "I ask about {} it is")
SCALE = 0.5  # size of a row of the output head


def records(subjects: dict[str, dict[str, str]] = SUBJECTS) -> dict[str, list[Record]]:
    """Ask for every subject in every template."""
    return {
        profile: [
            Record(
                id=f"{profile}-{subject}-{index}",
                prompt=template.format(subject),
                target=f" {answer}",
                profile=profile,
                source=f"statement:{profile}",
            )
            for subject, answer in answers.items()
            for index, template in enumerate(TEMPLATES)
        ]
        for profile, answers in subjects.items()
    }


def lopsided(profile: str) -> list[Record]:
    """Ask 27 times for the first answer of a profile and 3 times for the second."""
    (first, answer), (second, _) = list(SUBJECTS[profile].items())[:2]
    group = records()[profile]
    some = [each for each in group if f" {first}" in each.prompt or f" {second}" in each.prompt]
    more = [
        Record(
            id=f"more-{number}",
            prompt=f"So{' what' * number} of {first} it is",
            target=f" {answer}",
            profile=profile,
            source="statement:more",
        )
        for number in range(1, 25)
    ]
    return [*some, *more]


def tokenizer_of(profiles: dict[str, list[Record]]) -> Tokenizer:
    """Number the words of the profiles, with a few that no record uses."""
    texts = [each.prompt + each.target + "." for group in profiles.values() for each in group]
    return word_tokenizer([*texts, " decoy other word"])


class Planted(nn.Module):
    """Hidden state = direction of the answer to the last subject so far, plus a little noise.

    Letters: ``B`` rows, ``T`` positions, ``C`` channels, ``V`` vocabulary. There are as many
    channels as ids, and the rows of the head are orthogonal, so that nothing overlaps.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        subjects: dict[str, dict[str, str]] = SUBJECTS,
        *,
        bias: dict[str, float] | None = None,
        noise: float = 0.05,
        frozen: bool = False,
        constant: dict[str, float] | None = None,
    ) -> None:
        super().__init__()
        size = tokenizer.vocab_size
        generator = torch.Generator().manual_seed(0)
        rotation, _ = torch.linalg.qr(torch.randn(size, size, generator=generator).double())
        self.head_weight = nn.Parameter(SCALE * rotation.float())
        self.output_bias = None if bias is None else torch.zeros(size)
        for text, value in (bias or {}).items():
            assert self.output_bias is not None
            self.output_bias[tokenizer.pieces.index(text)] = value
        self.config = SimpleNamespace(softcap=30.0)
        self.noise = noise * torch.randn(size, size, generator=generator)
        self.answer = torch.full((size,), -1)
        for answers in subjects.values():
            for subject, answer in answers.items():
                self.answer[tokenizer.pieces.index(f" {subject}")] = (
                    0 if frozen else tokenizer.pieces.index(f" {answer}")
                )
        self.offset = torch.zeros(size)
        for text, value in (constant or {}).items():
            self.offset += value * self.head_weight.detach()[tokenizer.pieces.index(text)]
        self.tap = untouched

    def sites(self) -> tuple[str, ...]:
        """List the places where tensors can be read."""
        return ("final_norm", "logits")

    def forward(self, ids: Tensor) -> Tensor:
        """Return logits (B, T, V) for ids (B, T)."""
        answer = self.answer[ids]  # (B, T), -1 where no subject is named
        place = torch.where(answer >= 0, torch.arange(ids.shape[1]), -1).cummax(dim=1).values
        last = answer.gather(1, place.clamp(min=0))
        weight = self.head_weight.detach()
        hidden = torch.where((place >= 0)[..., None], weight[last] / SCALE, 0.0)
        size = weight.shape[1] ** 0.5
        hidden = self.tap("final_norm", size * hidden + self.noise[ids] + self.offset)
        scores = hidden @ self.head_weight.T
        if self.output_bias is not None:
            scores = scores + self.output_bias
        return self.tap("logits", 30.0 * torch.tanh(scores / 30.0))


def reference_rows(profiles: dict[str, list[Record]], tokenizer: Tokenizer) -> list[np.ndarray]:
    """Encode prompts as a reference text, a row each."""
    groups: Sequence[list[Record]] = list(profiles.values())
    return [
        np.array([[tokenizer.bos, *tokenizer.encode(each.prompt)]])
        for group in groups
        for each in group
    ]
