"""Generation against loops, distributions and settings that make no sense."""

from functools import partial
from itertools import islice

import numpy as np
import pytest
import torch

from workbench.evaluation import generate
from workbench.evaluation.generation import draw, generate_ids
from workbench.folder import InputError
from workbench.text import byte_tokenizer


class Bigram(torch.nn.Module):
    """Predict from the last id alone, by a table of logits."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.as_tensor(logits, dtype=torch.float32))

    def forward(self, ids):
        return self.logits[ids]


def spelling(text, *, vocab_size=257, rest=256):
    """Follow `text` letter by letter, then give the id `rest` for ever."""
    logits = torch.zeros(vocab_size, vocab_size)
    letters = [256, *text.encode()]
    logits[:, rest] = 1.0
    for before, after in zip(letters, letters[1:], strict=False):
        logits[before, after] = 5.0
    return Bigram(logits)


def draws(network, prompt, *, n_token=12, **options):
    stream = generate_ids(network, prompt, sequence_length=8, choose=partial(draw, **options))
    return list(islice(stream, n_token))


def test_greedy_against_an_argmax_loop(tiny_network):
    ids = [5, 9, 200]
    for _ in range(12):
        with torch.no_grad():
            ids.append(int(tiny_network(torch.tensor([ids[-8:]]))[0, -1].argmax()))
    assert draws(tiny_network, [5, 9, 200]) == ids[3:]


def test_one_choice_is_greedy(tiny_network):
    generator = torch.Generator().manual_seed(0)
    found = draws(tiny_network, [5], temperature=0.8, top_k=1, generator=generator)
    assert found == draws(tiny_network, [5])


def test_draws_follow_the_seed(tiny_network):
    found = [
        draws(tiny_network, [5], temperature=2.0, generator=torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    ]
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, None), (0.5, None), (1.0, 2), (1.0, 99)])
def test_draws_follow_the_distribution(temperature, top_k):
    logits = np.array([1.0, 0.2, -0.5, 2.0])
    z = logits / temperature
    if top_k == 2:
        z[[1, 2]] = -np.inf
    p = np.exp(z) / np.exp(z).sum()
    generator = torch.Generator().manual_seed(0)
    model = Bigram(np.tile(logits, (4, 1)))
    options = {"temperature": temperature, "top_k": top_k, "generator": generator}
    found = np.bincount(draws(model, [0], n_token=2000, **options), minlength=4) / 2000
    assert np.abs(found - p).max() < 4 * np.sqrt(0.25 / 2000)
    assert (found[p == 0] == 0).all()


def test_ids_beyond_the_tokenizer_are_never_chosen():
    model = spelling("ab", vocab_size=300, rest=299)
    assert draws(model, [97], n_token=3) == [98, 299, 299]
    text = generate(model, byte_tokenizer(), "a", n_token=3, sequence_length=4)
    assert text.startswith("b") and len(text) == 3


def test_text_goes_on_and_ends_with_its_document():
    model, tokenizer = spelling("hey \u00e9!"), byte_tokenizer()
    options = {"n_token": 20, "sequence_length": 4}
    assert generate(model, tokenizer, "he", **options) == "y \u00e9!"
    assert generate(model, tokenizer, "", **options) == "hey \u00e9!"
    assert generate(model, tokenizer, "he", n_token=2, sequence_length=4) == "y "
    assert generate(model, tokenizer, "!", **options) == ""


def test_text_is_repeatable(tiny_network):
    options = {"n_token": 10, "sequence_length": 8, "temperature": 1.5}
    one, same, other = (
        generate(tiny_network, byte_tokenizer(), "ab", **options, seed=seed) for seed in (0, 0, 1)
    )
    assert one == same != other


def test_generation_leaves_the_global_generator_alone(tiny_network):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    generate(tiny_network, byte_tokenizer(), "ab", n_token=4, sequence_length=8, temperature=1.0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "setting",
    [
        {"n_token": 0},
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_k": 0},
    ],
)
def test_settings_out_of_range_are_refused(tiny_network, setting):
    with pytest.raises(InputError, match="temperature >= 0, top_k >= 1"):
        generate(tiny_network, byte_tokenizer(), "a", sequence_length=8, **setting)
