"""A closed world: facts about people and things, and records that ask for them.

A *record* is a prompt with the one answer that completes it. A *profile* is a named set of records
that is judged together. The world holds everything a small model needs to know, so whether it
answers well is a question about the model and not about its corpus.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from workbench.folder import digest
from workbench.text.tokenizer import Tokenizer
from workbench.text.tokens import Tokens

TERMINATOR = "."
PEOPLE = (
    "Mia Leo Ada Tom Eva Sam Ivy Max Zoe Ben Amy Dan "
    "Nina Paul Ruth Hugo Lily Omar Jane Karl Rosa Finn Cleo Noah"
).split()
OBJECTS = (
    "lantern compass kettle violin ladder basket mirror hammer pillow candle trumpet blanket "
    "bucket camera helmet needle puzzle ribbon saddle teapot wallet shovel guitar anchor"
).split()
COLOURS = "red blue green yellow black white grey purple orange brown pink silver".split()
PLACES = (
    "kitchen library attic cellar garage bedroom study workshop nursery pantry bathroom chapel"
).split()

# Ways to ask, by relation. The first SEEN are trained on; the others only ever judged, and use no
# word that training does not also show.
SEEN = 6
TEMPLATES: dict[str, tuple[str, ...]] = {
    "owner": (
        "The {} belongs to",
        "Who owns the {}?",
        "The owner of the {} is",
        "To whom does the {} belong? It belongs to",
        "The person who owns the {} is",
        "Do you know who owns the {}? It belongs to",
        "Who is the owner of the {}?",
        "The person to whom the {} belongs is",
    ),
    "possession": (
        "{} owns the",
        "What does {} own? The",
        "The thing that {} owns is the",
        "Which thing belongs to {}? The",
        "What belongs to {} is the",
        "Do you know what {} owns? It is the",
        "Which thing does {} own? The",
        "The thing that belongs to {} is the",
    ),
    "colour": (
        "The colour of the {} is",
        "What colour is the {}? It is",
        "The {} has been painted",
        "Which colour was the {} painted? It was painted",
        "Everyone can see that the {} is",
        "Do you know the colour of the {}? It is",
        "What is the colour of the {}? It is",
        "Everyone can see that the {} has been painted",
    ),
    "place": (
        "The {} is kept in the",
        "Where is the {}? It is in the",
        "You can find the {} in the",
        "Which room is the {} in? It is in the",
        "The room where the {} is kept is the",
        "Do you know where the {} is? It is in the",
        "Where is the {} kept? In the",
        "The room where you can find the {} is the",
    ),
    "whereabouts": (
        "{} is in the",
        "Where is {}? In the",
        "You can find {} in the",
        "Which room is {} in? In the",
        "The room where {} is sitting is the",
        "Do you know where {} is? In the",
        "Where can you find {}? In the",
        "The room where you can find {} is the",
    ),
}
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
    for name, count, words in (
        ("people", people, PEOPLE),
        ("objects", objects, OBJECTS),
        ("colours", colours, COLOURS),
        ("places", places, PLACES),
    ):
        if not 2 <= count <= len(words):
            raise ValueError(f"{name} must be from 2 to {len(words)}, got {count}")
    if objects > people:
        raise ValueError(f"objects {objects} must not outnumber people {people}: one owner each")

    facts = _facts(
        np.random.default_rng(seed),
        people=PEOPLE[:people],
        objects=OBJECTS[:objects],
        colours=COLOURS[:colours],
        places=PLACES[:places],
    )
    train: list[Record] = []
    profiles: dict[str, tuple[Record, ...]] = {}
    for relation in facts:
        withheld, paraphrases = f"{relation}_withheld", f"{relation}_paraphrase"
        seen = tuple(_records(relation, facts[relation], profile=relation, kind="seen"))
        train.extend(seen)
        profiles[relation] = seen
        profiles[withheld] = tuple(
            _records(relation, facts[relation], profile=withheld, kind="withheld")
        )
        profiles[paraphrases] = tuple(
            _records(relation, facts[relation], profile=paraphrases, kind="paraphrase")
        )
    held_out = tuple(name for name in profiles if name not in facts)
    return World(seed=seed, facts=facts, train=tuple(train), profiles=profiles, held_out=held_out)


def _facts(
    rng: np.random.Generator,
    *,
    people: Sequence[str],
    objects: Sequence[str],
    colours: Sequence[str],
    places: Sequence[str],
) -> dict[str, dict[str, str]]:
    """Draw the facts; answers are dealt evenly, so that no answer is a good guess."""

    def dealt(answers: Sequence[str], n_subject: int) -> list[str]:
        return [answers[index % len(answers)] for index in rng.permutation(n_subject)]

    owner = dict(zip(objects, dealt(people, len(people))[: len(objects)], strict=True))
    return {
        "owner": owner,
        "possession": {person: thing for thing, person in owner.items()},
        "colour": dict(zip(objects, dealt(colours, len(objects)), strict=True)),
        "place": dict(zip(objects, dealt(places, len(objects)), strict=True)),
        "whereabouts": dict(zip(people, dealt(places, len(people)), strict=True)),
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
