"""Hugging Face tokenizer.json files whose byte counts can be proven.

A token's bytes follow from the decoder: a ByteLevel decoder maps each character to one byte
(GPT-2's table), and Metaspace, Replace and ByteFallback decoders write spaces and bytes as
SentencePiece does. Any other decoder edits text across tokens, so no token has bytes of its own.
"""

import json
from typing import Any

import tokenizers

from workbench.folder import InputError
from workbench.text.vocabulary import BYTE_PIECE, SPACE_MARK, Tokenizer, tabulated

BEGINNINGS = ("<s>", "<bos>", "<|begin_of_text|>", "<|startoftext|>", "<|endoftext|>", "</s>")
UNUSED = "<|unused|>"  # shown for an id that no token has
HARMLESS = ("Fuse", "Strip")  # Strip takes off the space that the encoder put in front


def huggingface_tokenizer(model: bytes, *, where: object) -> Tokenizer:
    """Load a tokenizer.json from the bytes of its file.

    Parameters
    ----------
    model : bytes
        Contents of the file.
    where : object
        What an error message names.

    Raises
    ------
    InputError
        If the file is broken, its decoder gives no byte counts, or no token begins a document.
    """
    loaded, content = _parse(model, where)
    decoders = _decoders(content.get("decoder"), where)
    added = content.get("added_tokens") or []
    specials = {each["content"]: int(each["id"]) for each in added if each["special"]}
    literals = {each["content"] for each in added} - set(specials)
    none = {*specials, *_unknown(content.get("model", {})), UNUSED}
    size = 1 + max(loaded.get_vocab(with_added_tokens=True).values(), default=-1)
    names = [loaded.id_to_token(token) or UNUSED for token in range(size)]
    texts = [None if name in none else _token_bytes(name, decoders, literals) for name in names]
    spells = "ByteFallback" in decoders
    return tabulated(
        names,
        texts,
        kind="huggingface",
        byte_fallback=[spells and bool(BYTE_PIECE.fullmatch(name)) for name in names],
        bos=_begin(specials, where),
        model=model,
        encoder=lambda text: loaded.encode(text, add_special_tokens=False).ids,
    )


def _parse(model: bytes, where: object) -> tuple[tokenizers.Tokenizer, dict[str, Any]]:
    """Read the file twice: as the library does, and as JSON."""
    try:
        content = json.loads(model)
        loaded = tokenizers.Tokenizer.from_str(model.decode("utf-8"))
    except Exception as error:  # the library raises bare Exception
        wanted, found = "a Hugging Face tokenizer.json", f"a file it cannot read ({error})"
        remedy = "Save it again with tokenizer.save()."
        raise InputError(where, expected=wanted, found=found, remedy=remedy) from None
    loaded.no_truncation()
    loaded.no_padding()
    loaded.encode_special_tokens = True  # "<s>" in a text is text
    return loaded, content


def _decoders(decoder: dict[str, Any] | None, where: object) -> list[str]:
    """Return the names of the decoder's parts, refusing those that hide the bytes."""
    parts = [] if decoder is None else decoder.get("decoders", [decoder])
    names = [part["type"] for part in parts]
    hiding = [part["type"] for part in parts if not _is_provable(part)]
    if not hiding and not set(names) <= set(HARMLESS):
        return names
    wanted = "a ByteLevel, Metaspace or ByteFallback decoder"
    if hiding:
        found, why = f"decoder {hiding[0]}", "It changes text across tokens"
    else:
        found = f"decoder {' + '.join(names)} alone" if names else "no decoder"
        why = "The spaces between tokens are unknown"
    remedy = f"{why}, so byte counts cannot be proven. Use another tokenizer or decoder."
    raise InputError(where, expected=wanted, found=found, remedy=remedy)


def _is_provable(part: dict[str, Any]) -> bool:
    """Tell whether a part of a decoder leaves each token its own bytes."""
    match part["type"]:
        case "Metaspace":
            return bool(part["replacement"] == SPACE_MARK)
        case "Replace":
            return bool(part["pattern"] == {"String": SPACE_MARK} and part["content"] == " ")
        case "Strip":
            return bool(part["content"] == " " and part["start"] <= 1 and part["stop"] == 0)
        case name:
            return name in ("ByteLevel", "ByteFallback", "Fuse")


def _unknown(model: dict[str, Any]) -> set[str]:
    """Return the unknown token, which Unigram models name by its place."""
    if isinstance(model.get("unk_id"), int):
        return {model["vocab"][model["unk_id"]][0]}
    return {model["unk_token"]} if model.get("unk_token") else set()


def _token_bytes(name: str, decoders: list[str], literals: set[str]) -> bytes:
    """Return the text of a token under the given decoders."""
    if name in literals:
        return name.encode()
    if "ByteLevel" in decoders:
        mapped = [BYTE_OF.get(character) for character in name]
        return bytes(b for b in mapped if b is not None) if None not in mapped else name.encode()
    matched = BYTE_PIECE.fullmatch(name) if "ByteFallback" in decoders else None
    if matched:
        return bytes([int(matched[1], 16)])
    spaced = {"Metaspace", "Replace"} & set(decoders)
    return (name.replace(SPACE_MARK, " ") if spaced else name).encode()


def _begin(specials: dict[str, int], where: object) -> int:
    """Return the id that begins a document: a special token of a known name, else the first."""
    for name in (*BEGINNINGS, *specials):
        if name in specials:
            return specials[name]
    wanted = "a special token to begin documents with"
    remedy = "Add one: tokenizer.add_special_tokens(['<s>'])."
    raise InputError(where, expected=wanted, found="none among its added tokens", remedy=remedy)


def _byte_alphabet() -> dict[str, int]:
    """Return GPT-2's table: printable bytes are themselves, the others follow from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    shifted = {chr(0x100 + place): byte for place, byte in enumerate(others)}
    return {chr(byte): byte for byte in printable} | shifted


BYTE_OF = _byte_alphabet()
