"""A corpus and a tokenizer opened together: the two splits that a run trains and is judged on."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.folder import InputError
from workbench.text.corpus import Corpus, encode_corpus, open_corpus
from workbench.text.tokenizer import (
    Tokenizer,
    byte_tokenizer,
    load_tokenizer,
    tokenizer_losses,
    train_tokenizer,
)
from workbench.text.tokens import Tokens
from workbench.text.world import world_documents, world_tokens

WORLD_VOCABULARY = 512  # a world's few words, each one token; it has no use for more


@dataclass(frozen=True, kw_only=True)
class Data:
    """A tokenised corpus: what `training` learns and `evaluation` scores."""

    corpus: Corpus
    tokenizer: Tokenizer
    train: Tokens
    validation: Tokens
    text_field: str = "text"

    def identity(self) -> dict[str, Any]:
        """Say which data these are, for a run's record."""
        return {
            "source": self.corpus.source,
            "text_field": self.text_field,
            "name": self.corpus.name,
            "kind": self.corpus.kind,
            "corpus_hash": self.corpus.hash,
            "tokenizer_kind": self.tokenizer.kind,
            "tokenizer_hash": self.tokenizer.hash,
            "vocab_size": self.tokenizer.vocab_size,
            "train_tokens": len(self.train.ids),
            "train_documents": self.train.n_document,
            "validation_tokens": len(self.validation.ids),
            "validation_documents": self.validation.n_document,
            "validation_documents_changed": self.losses()["documents_changed"],
        }

    def losses(self) -> dict[str, Any]:
        """Say what the tokenizer loses of the validation text; token shards have no text to lose.

        Returns
        -------
        dict
            See `tokenizer_losses`.
        """
        return tokenizer_losses(self.tokenizer, self.corpus.validation)


def open_data(
    source: str | Path,
    *,
    text_field: str = "text",
    tokenizer: str | Path = "",
    vocab_size: int = 1024,
) -> Data:
    """Open a corpus and tokenise both splits.

    Parameters
    ----------
    source : str or Path
        A known corpus name or a path; see `open_corpus`.
    text_field : str
        Field that holds the text in .jsonl and .parquet files.
    tokenizer : str or Path
        ``""``: the model beside token shards, else one trained here on the training split;
        ``"bytes"``: raw bytes; else a path to a saved or foreign tokenizer.
    vocab_size : int
        Size of a tokenizer that is trained here; a closed world takes `WORLD_VOCABULARY` at most.
    """
    corpus = open_corpus(source, text_field=text_field)
    chosen = _tokenizer(corpus, str(tokenizer), vocab_size)
    if corpus.world is None:
        train, validation = encode_corpus(corpus, chosen)
    else:
        train = world_tokens(corpus.world.train, chosen)
        validation = world_tokens(corpus.world.judging, chosen)
    return Data(
        corpus=corpus, tokenizer=chosen, train=train, validation=validation, text_field=text_field
    )


def reopen_data(identity: Mapping[str, Any], tokenizer: Path) -> Data:
    """Open the data of a run again, and refuse data that changed since.

    Raises
    ------
    InputError
        If the corpus now has another hash than the run recorded.
    """
    field = identity.get("text_field", "text")
    data = open_data(identity["source"], text_field=field, tokenizer=tokenizer)
    if data.corpus.hash != identity["corpus_hash"]:
        wanted = f"the corpus of this run ({identity['corpus_hash'][:12]})"
        found = f"one with hash {data.corpus.hash[:12]}"
        remedy = "Restore the text, or name the corpus to judge on with --corpus."
        raise InputError(identity["source"], expected=wanted, found=found, remedy=remedy)
    return data


def _tokenizer(corpus: Corpus, wanted: str, vocab_size: int) -> Tokenizer:
    """Train, load or derive the tokenizer that was asked for."""
    if wanted == "bytes":
        return byte_tokenizer()
    if wanted:
        return load_tokenizer(Path(wanted))
    if corpus.tokenizer_path is not None:
        return load_tokenizer(corpus.tokenizer_path)
    if corpus.world is not None:
        documents = world_documents(corpus.world)
        return train_tokenizer(documents, vocab_size=min(vocab_size, WORLD_VOCABULARY))
    return train_tokenizer(corpus.train, vocab_size=vocab_size)
