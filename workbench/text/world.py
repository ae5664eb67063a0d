"""A closed world: facts about people and things, and records that ask for them.

A *record* is a prompt with the one answer that completes it. A *profile* is a named set of records
that is judged together. The world holds everything a small model needs to know, so whether it
answers well is a question about the model and not about its corpus.
"""

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files

import numpy as np

from workbench.folder import digest
from workbench.text.tokenizer import Tokenizer
from workbench.text.tokens import Tokens

TERMINATOR = "."
WORDS = tomllib.loads(files("workbench.text").joinpath("world.toml").read_text(encoding="utf-8"))
TEMPLATES: dict[str, list[str]] = WORDS["templates"]  # ways to ask, by relation
SEEN = 6  # of them are trained on, the first
KINDS = {"seen": "", "withheld": "_withheld", "paraphrase": "_paraphrase"}  # ends of profile names
WITHHOLD_EVERY = 3  # of a fact's trained phrasings, one in three is kept back


@dataclass(frozen=True, kw_only=True)
class Record:
    """One prompt with its answer.

    The target begins with a space and has no terminator; `source` is ``family:label``, such as
    ``question:owner``.
    """

    id: str
    prompt: str
    target: str
    profile: str
    source: str
    fact: str = ""  # what it asks about, the same for every phrasing; "" stands alone


@dataclass(frozen=True, kw_only=True)
class World:
    """Facts, the records that teach them, and the profiles that ask for them.

    `facts` maps a relation to ``{subject: answer}``. `held_out` names the profiles whose prompts
    never occur in training: ``*_withheld`` asks in a phrasing that training used for other facts,
    ``*_paraphrase`` in one that training never used.
    """

    seed: int
    facts: Mapping[str, Mapping[str, str]]
    train: tuple[Record, ...]
    profiles: Mapping[str, tuple[Record, ...]]
    held_out: tuple[str, ...]

    @property
    def judging(self) -> tuple[Record, ...]:
        """The records of the held-out profiles."""
        return tuple(record for name in self.held_out for record in self.profiles[name])

    @property
    def hash(self) -> str:
        """SHA-256 of every record, training and evaluation."""
        records = [self.train, *self.profiles.values()]
        return digest(json.dumps([[asdict(each) for each in group] for group in records]))


def closed_world(
    seed: int = 0, *, people: int = 12, objects: int = 12, colours: int = 6, places: int = 6
) -> World:
    """Make a world: who owns what, what colour it is, and where everyone and everything is.

    Parameters
    ----------
    seed : int
        Draws the facts; the words are the same for every seed.
    people, objects, colours, places : int
        How many of each. Every object has one owner and nobody owns two.

    Returns
    -------
    World
        For each relation three profiles: the trained prompts, those withheld, and paraphrases.

    Raises
    ------
    ValueError
        If a number is below 2 or above the words there are, or objects outnumber people.

    Examples
    --------
    >>> world = closed_world()
    >>> len(world.train), sorted(world.profiles)[:3]
    (240, ['colour', 'colour_paraphrase', 'colour_withheld'])
    >>> world.train[0].prompt + world.train[0].target + TERMINATOR
    'Who owns the lantern? Ben.'
    """
    wanted = {"people": people, "objects": objects, "colours": colours, "places": places}
    for name, count in wanted.items():
        if not 2 <= count <= len(WORDS[name]):
            raise ValueError(f"{name} must be from 2 to {len(WORDS[name])}, got {count}")
    if objects > people:
        raise ValueError(f"objects {objects} must not outnumber people {people}: one owner each")

    words = {name: WORDS[name][:count] for name, count in wanted.items()}
    facts = _facts(np.random.default_rng(seed), words)
    profiles = {
        relation + end: tuple(_records(relation, answers, profile=relation + end, kind=kind))
        for relation, answers in facts.items()
        for kind, end in KINDS.items()
    }
    train = tuple(record for relation in facts for record in profiles[relation])
    held_out = tuple(name for name in profiles if name not in facts)
    return World(seed=seed, facts=facts, train=train, profiles=profiles, held_out=held_out)


def _facts(
    rng: np.random.Generator, words: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, str]]:
    """Draw the facts; answers are dealt evenly, so that no answer is a good guess."""

    def dealt(answers: str, n_subject: int) -> list[str]:
        given = words[answers]
        return [given[index % len(given)] for index in rng.permutation(n_subject)]

    people, objects = words["people"], words["objects"]
    owner = dict(zip(objects, dealt("people", len(people)), strict=False))
    return {
        "owner": owner,
        "possession": {person: thing for thing, person in owner.items()},
        "colour": dict(zip(objects, dealt("colours", len(objects)), strict=True)),
        "place": dict(zip(objects, dealt("places", len(objects)), strict=True)),
        "whereabouts": dict(zip(people, dealt("places", len(people)), strict=True)),
    }


def _records(
    relation: str, facts: Mapping[str, str], *, profile: str, kind: str
) -> Iterator[Record]:
    """Phrase every fact of a relation in the templates of one kind."""
    for number, (subject, answer) in enumerate(facts.items()):
        for index, template in enumerate(TEMPLATES[relation]):
            kept_back = index % WITHHOLD_EVERY == number % WITHHOLD_EVERY
            kind_of = "paraphrase" if index >= SEEN else "withheld" if kept_back else "seen"
            if kind_of != kind:
                continue
            family = "question" if "?" in template else "statement"
            yield Record(
                id=f"{profile}-{number:02d}-{index}",
                prompt=template.format(subject),
                target=f" {answer}",
                profile=profile,
                source=f"{family}:{relation}",
                fact=_fact(relation, subject, answer),
            )


def _fact(relation: str, subject: str, answer: str) -> str:
    """Name a fact; who owns a thing and what a person owns are one."""
    if relation in ("owner", "possession"):
        return "ownership: " + ", ".join(sorted((subject, answer)))
    return f"{relation}: {subject}"


def world_documents(world: World) -> tuple[str, ...]:
    """Return every text of the world, evaluation included, to train a tokenizer on."""
    records = [*world.train, *(each for group in world.profiles.values() for each in group)]
    return tuple(dict.fromkeys(each.prompt + each.target + TERMINATOR for each in records))


def world_tokens(records: Sequence[Record], tokenizer: Tokenizer) -> Tokens:
    """Tokenise records, one document each: beginning, prompt, target, terminator.

    Prompt and completion are encoded apart, so that the place where the answer begins does not
    depend on the answer. Only the completion is marked as learned and scored. Records of one fact
    are one group: they are not independent observations.
    """
    ids: list[int] = []
    starts: list[int] = []
    answers: list[bool] = []
    for record in records:
        starts.append(len(ids))
        prompt, completion = prompt_ids(record, tokenizer), completion_ids(record, tokenizer)
        ids += prompt + completion
        answers += [False] * len(prompt) + [True] * len(completion)
    return Tokens(
        ids=np.array(ids, dtype=np.int32),
        starts=np.array(starts, dtype=np.int64),
        answers=np.array(answers, dtype=bool),
        groups=np.unique([each.fact or each.id for each in records], return_inverse=True)[1],
    )


def prompt_ids(record: Record, tokenizer: Tokenizer) -> list[int]:
    """Return the beginning-of-text id and the prompt's ids."""
    return [tokenizer.bos, *(int(each) for each in tokenizer.encode(record.prompt))]


def completion_ids(record: Record, tokenizer: Tokenizer) -> list[int]:
    """Return the ids of the target with its terminator, as they come after a prompt."""
    # An encoder that puts a space before every text would otherwise make it two.
    target = record.target[1:] if tokenizer.drops_leading_space else record.target
    return [int(each) for each in tokenizer.encode(target + TERMINATOR)]
