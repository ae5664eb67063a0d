"""Corpora, tokenizers, token classes, byte counts, shards and closed worlds."""

from workbench.text.byte_audit import ByteFailure, audit_bytes
from workbench.text.context_gate import ContextGate, branches, context_gate
from workbench.text.corpus import Corpus, encode_corpus, open_corpus
from workbench.text.data import Data, open_data, reopen_data
from workbench.text.profiles import read_profiles
from workbench.text.shards import read_shard, write_shard
from workbench.text.token_classes import (
    TOKEN_CLASSES,
    ClassScheme,
    class_scheme,
    classify,
    frequency_deciles,
)
from workbench.text.tokenizer import (
    Tokenizer,
    byte_tokenizer,
    load_tokenizer,
    tokenizer_losses,
    train_tokenizer,
)
from workbench.text.tokens import (
    IGNORED,
    Tokens,
    Windows,
    record_batches,
    rows,
    stream_batches,
    windows,
)
from workbench.text.world import Record, World, closed_world, world_documents, world_tokens

__all__ = [
    "IGNORED",
    "TOKEN_CLASSES",
    "ByteFailure",
    "ClassScheme",
    "ContextGate",
    "Corpus",
    "Data",
    "Record",
    "Tokenizer",
    "Tokens",
    "Windows",
    "World",
    "audit_bytes",
    "branches",
    "byte_tokenizer",
    "class_scheme",
    "classify",
    "closed_world",
    "context_gate",
    "encode_corpus",
    "frequency_deciles",
    "load_tokenizer",
    "open_corpus",
    "open_data",
    "read_profiles",
    "read_shard",
    "record_batches",
    "reopen_data",
    "rows",
    "stream_batches",
    "tokenizer_losses",
    "train_tokenizer",
    "windows",
    "world_documents",
    "world_tokens",
    "write_shard",
]
