"""Corpora: what a name or a path holds, as a training and a validation split.

A source is looked at in this order: a known name; a folder of token shards; ``.jsonl`` or
``.parquet``; a folder of ``.txt``; one ``.txt``. A folder that could be two of these is refused.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.folder import InputError, digest, nearest
from workbench.text.documents import read_documents, read_text
from workbench.text.python_docs import python_docs
from workbench.text.shards import check_vocabulary, read_shard
from workbench.text.tokens import Tokens
from workbench.text.vocabulary import Tokenizer
from workbench.text.world import TERMINATOR, closed_world

FAMILIES = (".bin", ".jsonl", ".parquet", ".txt")
VALIDATION_SHARE = 0.05  # of the documents, where the corpus itself has no validation split
ROLE = re.compile(r"(train|validation|valid|val|test)(?![a-z])")
Split = tuple[tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Corpus:
    """Two splits of text, token ids or records. Two corpora are the same when `hash` is."""

    name: str
    source: str  # what opens it again: a known name or an absolute path
    kind: str  # "text", "shards" or "world"
    hash: str  # of both splits
    # Documents; none for shards.
    train: tuple[str, ...] = field(default=(), repr=False)
    validation: tuple[str, ...] = field(default=(), repr=False)
    # (token,) ids of shards, in sorted file order.
    train_ids: NDArray[np.uint16] | None = field(default=None, repr=False)
    validation_ids: NDArray[np.uint16] | None = field(default=None, repr=False)
    tokenizer_path: Path | None = None  # the model beside the shards
    world: Any = field(default=None, repr=False)  # the closed world behind the texts


def open_corpus(source: str | Path, *, text_field: str = "text") -> Corpus:
    """Open a corpus by name or path.

    Parameters
    ----------
    source : str or Path
        One of `KNOWN`, a file or a folder. Without a pair of files named train and validation,
        documents are dealt to the splits by their hash, so that copies never part.
    text_field : str
        Field that holds the text in .jsonl and .parquet files.

    Raises
    ------
    InputError
        If there is nothing by that name, it is ambiguous, empty or broken, or a split is empty.
    """
    if str(source) in KNOWN:
        return KNOWN[str(source)]()
    path = Path(source).expanduser().resolve()
    if not path.exists():
        wanted, remedy = "a known corpus or a path", nearest(str(source), sorted(KNOWN))
        where = f"corpus {str(source)!r}"
        raise InputError(where, expected=wanted, found="neither", remedy=remedy)
    files = _files(path)
    if files[0].suffix == ".bin":
        return _shards(path, files)
    train, validation = _read_split(path, files, text_field)
    return _text_corpus(path.name, str(path), train, validation)


def _text_corpus(name: str, source: str, train: Sequence[str], validation: Sequence[str]) -> Corpus:
    """Make a corpus of documents."""
    return Corpus(
        name=name,
        source=source,
        kind="text",
        hash=digest(digest(*train), digest(*validation)),
        train=tuple(train),
        validation=tuple(validation),
    )


def _files(path: Path) -> list[Path]:
    """List the files of a corpus, all of one family."""
    inside = sorted(path.iterdir()) if path.is_dir() else [path]
    files = [each for each in inside if each.suffix in FAMILIES and each.name[0] != "."]
    families = sorted({each.suffix for each in files})
    if len(families) == 1 and (path.is_dir() or families != [".bin"]):
        return files
    if len(families) > 1:
        found = f"an ambiguous mixture of {' and '.join(families)} files"
        remedy = "Name one file, or move the others away."
    elif families:
        found, remedy = "one shard", "Name the folder with the training and validation shards."
    else:
        found = "none of them" if path.is_dir() else f"a {path.suffix or 'nameless'} file"
        remedy = "Rename the text to .txt, or convert it to .jsonl."
    raise InputError(path, expected=f"{', '.join(FAMILIES)} data", found=found, remedy=remedy)


def _read_split(path: Path, files: list[Path], text_field: str) -> Split:
    """Read the documents of both splits."""
    pair = _pair(path, files)
    if pair is not None:
        return _documents(pair[0], text_field), _documents(pair[1], text_field)
    if files[0].suffix == ".txt" and len(files) > 1:
        texts = [text for text in map(read_text, files) if text.strip()]
        return split_documents(texts, where=path)
    return split_documents(_documents(files, text_field), where=path)


def _documents(files: list[Path], text_field: str) -> tuple[str, ...]:
    """Read the documents of files in order."""
    documents = tuple(doc for each in files for doc in read_documents(each, text_field))
    if not documents:
        raise _no_text(files[0] if len(files) == 1 else files[0].parent)
    return documents


def _no_text(where: object) -> InputError:
    """Say that there is nothing to read."""
    remedy = "Name another corpus."
    return InputError(where, expected="text", found="nothing (it is empty)", remedy=remedy)


def _pair(path: Path, files: list[Path]) -> tuple[list[Path], list[Path]] | None:
    """Find the train and validation files of a folder; test files are set aside."""
    roles: dict[str, list[Path]] = {"train": [], "val": [], "test": [], "": []}
    for each in files:
        match = ROLE.match(each.stem)
        role = match[1] if match else ""
        roles["val" if role.startswith("val") else role].append(each)
    if not (path.is_dir() and roles["train"] and roles["val"]):
        return None
    if roles[""]:
        others = ", ".join(each.name for each in roles[""][:3])
        wanted = "a train and validation pair alone, or independent documents"
        found = f"an ambiguous folder: the pair and {others}"
        raise InputError(path, expected=wanted, found=found, remedy="Move the other files away.")
    return roles["train"], roles["val"]


def split_documents(documents: Sequence[str], *, where: object) -> Split:
    """Deal documents to the training and validation split by their hash, and order them by it.

    The order is what training reads them in: as good as shuffled, the same on every machine.
    A document's side does not depend on the others, except that a small corpus gives up its
    document of lowest hash where validation would be empty.

    Parameters
    ----------
    documents : sequence of str
        At least two different ones.
    where : object
        What an error message names.

    Raises
    ------
    InputError
        If there are fewer than two different documents.
    """
    hashes = [digest(document) for document in documents]
    ranked = sorted(set(hashes))
    if not ranked:
        raise _no_text(where)
    if len(ranked) == 1:
        wanted = "at least two different documents, one for each split"
        found = "one" if len(documents) == 1 else f"{len(documents)} copies of one"
        remedy = "Use a longer text, or give a pair of files named train and validation."
        raise InputError(where, expected=wanted, found=found, remedy=remedy)
    held_out = [each for each in ranked if int(each[:8], 16) < VALIDATION_SHARE * 2**32]
    chosen = set(held_out[: len(ranked) - 1] or ranked[:1])
    pairs = sorted(zip(hashes, documents, strict=True))
    train = tuple(document for name, document in pairs if name not in chosen)
    return train, tuple(document for name, document in pairs if name in chosen)


def _shards(folder: Path, files: list[Path]) -> Corpus:
    """Open a folder of token shards."""
    models = sorted(folder.glob("*.model"))
    if len(models) > 1:
        found = f"an ambiguous choice: {', '.join(each.name for each in models)}"
        wanted, remedy = "one .model beside the shards", "Leave the one that wrote the shards."
        raise InputError(folder, expected=wanted, found=found, remedy=remedy)
    train = _concatenated(folder, files, "train")
    validation = _concatenated(folder, files, "val")
    return Corpus(
        name=folder.name,
        source=str(folder),
        kind="shards",
        hash=digest(train.astype("<u2").tobytes(), validation.astype("<u2").tobytes()),
        train_ids=train,
        validation_ids=validation,
        tokenizer_path=models[0] if models else None,
    )


def _concatenated(folder: Path, files: list[Path], role: str) -> NDArray[np.uint16]:
    """Join the shards of one split, in sorted order."""
    chosen = [each for each in files if re.search(f"(?<![a-z]){role}", each.stem)]
    ids = np.concatenate([np.zeros(0, np.uint16), *(read_shard(each) for each in chosen)])
    if not ids.size:
        wanted = f"shards named like fineweb_{role}_000000.bin, with tokens"
        found = f"{len(chosen)} of them, without tokens" if chosen else "none"
        remedy = "Name training shards *_train_* and validation shards *_val_*."
        raise InputError(folder, expected=wanted, found=found, remedy=remedy)
    return ids


def encode_corpus(corpus: Corpus, tokenizer: Tokenizer) -> tuple[Tokens, Tokens]:
    """Turn both splits into ids: each document is the beginning mark and its text.

    Parameters
    ----------
    corpus : Corpus
        An opened corpus. Shards keep their ids as they are.
    tokenizer : Tokenizer
        For shards, the one that wrote them.

    Returns
    -------
    train, validation : Tokens

    Raises
    ------
    InputError
        If the tokenizer is not the one of the shards.
    """
    if corpus.train_ids is None or corpus.validation_ids is None:
        return _encoded(corpus.train, tokenizer), _encoded(corpus.validation, tokenizer)
    _check_model(corpus, tokenizer)
    train = _found(corpus.train_ids, tokenizer, corpus)
    return train, _found(corpus.validation_ids, tokenizer, corpus)


def _check_model(corpus: Corpus, tokenizer: Tokenizer) -> None:
    """Refuse a tokenizer other than the one beside the shards."""
    if corpus.tokenizer_path is None:
        return
    beside = hashlib.sha256(corpus.tokenizer_path.read_bytes()).hexdigest()
    if beside != tokenizer.hash:
        wanted = f"the tokenizer beside the shards, {corpus.tokenizer_path.name} ({beside[:12]})"
        found = f"a {tokenizer.kind} tokenizer ({tokenizer.hash[:12]})"
        remedy = "Leave the tokenizer parameter empty: ids mean what their own model says."
        raise InputError(corpus.source, expected=wanted, found=found, remedy=remedy)


def _encoded(documents: Sequence[str], tokenizer: Tokenizer) -> Tokens:
    """Encode documents one after the other."""
    begin = np.array([tokenizer.bos], dtype=np.int32)
    parts = [part for each in documents for part in (begin, tokenizer.encode(each))]
    lengths = [1 + len(part) for part in parts[1::2]]
    starts = np.concatenate([[0], np.cumsum(lengths)])[:-1].astype(np.int64)
    return Tokens(ids=np.concatenate(parts), starts=starts)


def _found(ids: NDArray[np.uint16], tokenizer: Tokenizer, corpus: Corpus) -> Tokens:
    """Find the documents of a token stream: each begins at its mark; without marks it is one."""
    check_vocabulary(ids, tokenizer.vocab_size, where=corpus.source)
    starts = np.union1d([0], np.flatnonzero(ids == tokenizer.bos)).astype(np.int64)
    return Tokens(ids=ids.astype(np.int32), starts=starts)


def _python_docs() -> Corpus:
    """Open the documentation of this Python."""
    train, validation = split_documents(python_docs(), where="python-docs")
    return _text_corpus("python-docs", "python-docs", train, validation)


def _closed_world() -> Corpus:
    """Open the default closed world; its records carry which tokens are answers."""
    world = closed_world()
    asked = [record for group in world.profiles.values() for record in group]
    train, validation = (
        tuple(each.prompt + each.target + TERMINATOR for each in records)
        for records in (world.train, asked)
    )
    texts = _text_corpus("closed-world", "closed-world", train, validation)
    return replace(texts, kind="world", hash=world.hash, world=world)


KNOWN: dict[str, Callable[[], Corpus]] = {
    "closed-world": _closed_world,
    "python-docs": _python_docs,
}
