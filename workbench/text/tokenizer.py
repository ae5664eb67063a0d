"""Tokenizers: train one, load one, and say what it loses."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from workbench.folder import InputError
from workbench.text.huggingface_model import huggingface_tokenizer
from workbench.text.sentencepiece_model import sentencepiece_tokenizer, train_tokenizer
from workbench.text.vocabulary import MODEL_FILES, Tokenizer, byte_tokenizer

__all__ = ["Tokenizer", "byte_tokenizer", "load_tokenizer", "tokenizer_losses", "train_tokenizer"]
EXCERPT = 30  # characters shown on each side of a difference


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Load a SentencePiece .model, a Hugging Face tokenizer.json, or a folder that holds one.

    Raises
    ------
    InputError
        If there is no such file, the folder holds none or several, or the file is not what its
        name says.
    """
    path = Path(path)
    if path.is_dir():
        return load_tokenizer(_model_in(path))
    if not path.exists():
        raise _missing(path, "no file")
    content = path.read_bytes()
    if path.suffix == ".model":
        return sentencepiece_tokenizer(content, where=path)
    if path.suffix == ".json":
        return huggingface_tokenizer(content, where=path)
    if path.name == MODEL_FILES["bytes"]:
        return byte_tokenizer()
    raise _missing(path, f"a {path.suffix or 'nameless'} file")


def _model_in(folder: Path) -> Path:
    """Find the one tokenizer in a folder."""
    named = [folder / name for name in MODEL_FILES.values() if (folder / name).exists()]
    found = named or sorted(folder.glob("*.model"))
    if len(found) != 1:
        raise _missing(folder, ", ".join(each.name for each in found) or "none")
    return found[0]


def _missing(path: Path, found: str) -> InputError:
    """Say what a tokenizer path may be."""
    wanted = "one tokenizer: a .model, a tokenizer.json, or a folder with one of them"
    remedy = "Name the file itself; 'bytes' needs none."
    return InputError(path, expected=wanted, found=found, remedy=remedy)


def tokenizer_losses(tokenizer: Tokenizer, documents: Iterable[str]) -> dict[str, Any]:
    """Report what does not survive encoding and decoding.

    Returns
    -------
    dict
        ``documents``, ``documents_changed``, ``bytes_raw``, ``bytes_decoded``,
        ``characters_lost`` (character to count, most frequent first), and ``example``: None, or
        the number of the first changed document with both texts around the first difference.

    Examples
    --------
    >>> tokenizer_losses(byte_tokenizer(), ["a", "b"])["documents_changed"]
    0
    """
    lost: Counter[str] = Counter()
    n_document = changed = bytes_raw = bytes_decoded = 0
    example: dict[str, Any] | None = None
    for number, raw in enumerate(documents):
        decoded = tokenizer.decode(tokenizer.encode(raw))
        n_document += 1
        bytes_raw += len(raw.encode())
        bytes_decoded += len(decoded.encode())
        if decoded == raw:
            continue
        changed += 1
        lost += Counter(raw) - Counter(decoded)
        example = example or _difference(number, raw, decoded)
    return {
        "documents": n_document,
        "documents_changed": changed,
        "bytes_raw": bytes_raw,
        "bytes_decoded": bytes_decoded,
        "characters_lost": dict(lost.most_common()),
        "example": example,
    }


def _difference(number: int, raw: str, decoded: str) -> dict[str, Any]:
    """Cut both texts around the first character that differs."""
    pairs = enumerate(zip(raw, decoded, strict=False))
    at = next((i for i, (a, b) in pairs if a != b), min(len(raw), len(decoded)))
    span = slice(max(0, at - EXCERPT), at + EXCERPT)
    return {"document": number, "raw": raw[span], "decoded": decoded[span]}
