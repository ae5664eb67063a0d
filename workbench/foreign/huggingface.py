"""Hugging Face folders, config.json and safetensors, in and out; every disagreement is told.

References
----------
.. [1] Hugging Face, safetensors: format, https://huggingface.co/docs/safetensors
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from workbench.folder import InputError, read_json, replacing, write_json
from workbench.foreign.huggingface_config import (
    ArchMismatch,
    Claims,
    architecture_of,
    claims,
    family_of,
    problem,
    to_huggingface,
)
from workbench.foreign.loaded import CHECK, LAYERS, Foreign, check_file, check_length
from workbench.model.checkpoint import assemble, read_header, read_tensor, sha256, state
from workbench.model.network import Network
from workbench.text import Tokenizer

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
TOKENIZERS = ("tokenizer.json", "tokenizer.model")
SIZES = {"F32": 4, "F16": 2, "BF16": 2}  # bytes of a number; other types are refused
BUFFER = "rotary_emb.inv_freq"  # computed from the configuration
NAMES = {  # module of the network: module there
    "tok_emb": "model.embed_tokens",
    "final_norm": "model.norm",
    "lm_head": "lm_head",
    "attn_norm": "input_layernorm",
    "attn.c_q": "self_attn.q_proj",
    "attn.c_k": "self_attn.k_proj",
    "attn.c_v": "self_attn.v_proj",
    "attn.proj": "self_attn.o_proj",
    "attn.q_norm": "self_attn.q_norm",
    "attn.k_norm": "self_attn.k_norm",
    "mlp_norm": "post_attention_layernorm",
    "mlp.gate": "mlp.gate_proj",
    "mlp.fc": "mlp.up_proj",
    "mlp.proj": "mlp.down_proj",
}
SHAPED = ("attn.c_q", "attn.c_k", "mlp.gate")  # matrices of a layer that tell its sizes
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


@dataclass(frozen=True)
class Stored:
    """A tensor in a file, not yet read."""

    path: Path
    shape: tuple[int, ...]
    dtype: str


def read_huggingface(
    path: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    sequence_length: int | None = None,
    tokenizer: Path | None = None,
    corpus: Path | None = None,
) -> Foreign:
    """Load a Llama, Mistral, Qwen2 or Qwen3 from a folder as `transformers` saves it.

    Everything is checked from config.json and the headers of the files before a tensor is read;
    tensors are then read one by one, so that memory stays near the size of the weights.

    Parameters
    ----------
    path : str or Path
        Folder with config.json and safetensors, single or sharded; or a file in it.
    dtype : torch.dtype
        Of the weights in memory.
    sequence_length : int, optional
        Context to use [token] in place of the stated one. No other field is ever overridden.
    tokenizer, corpus : Path, optional
        In place of the tokenizer in the folder; it has no corpus.

    Returns
    -------
    Foreign
        `sources` names the origin of every field; `notes` has ``family, hf_architecture,
        special_ids, files`` (SHA-256 by name) and ``ignored`` tensors.

    Raises
    ------
    ArchMismatch
        Everything that disagrees, in one error; there is no fallback to other weights.
    InputError
        If config.json or the index is missing or broken, or a file is named that is none of those
        that are read.
    """
    path = Path(path)
    check_length(path, sequence_length)
    folder = path.parent if path.is_file() else path
    config = _config(folder)
    try:
        whole = _stored(folder)
    except ArchMismatch as error:  # the files say nothing of it
        error.hf_architecture = architecture_of(config)
        raise
    files = _files(folder, whole, named=path)
    stated = config.get("max_position_embeddings")
    stated = stated if isinstance(stated, int) and stated > 0 else None
    stored = {name: each for name, each in whole.items() if not name.endswith(BUFFER)}
    said = claims(config, stored, where=folder, context=sequence_length or stated)
    ids = {key: value for key, value in config.items() if key.endswith("_token_id")}
    problems = said.problems + _special(ids, said.values.get("vocab_size"))
    problems += _against(said, stored)
    if problems:
        about = {"family_expected": said.family, "hf_architecture": said.hf_architecture}
        raise ArchMismatch(folder, problems, family_found=family_of(stored), **about)
    with torch.device("meta"):
        named = {ours: foreign_name(ours) for ours in state(Network(said.model_config()))}
    tensors = {n: read_tensor(stored[at].path, at, dtype=dtype) for n, at in named.items()}
    origin = "given" if sequence_length else "config.json" if stated else "not stated"
    beside = [folder / name for name in TOKENIZERS if (folder / name).is_file()]
    return Foreign(
        network=assemble(said.model_config(), tensors).eval(),
        format="huggingface",
        sources={**said.sources, "sequence_length": origin},
        tokenizer=tokenizer or next(iter(beside), None),
        corpus=corpus,
        sequence_length=sequence_length or stated,
        notes={
            "family": said.family,
            "hf_architecture": said.hf_architecture,
            "special_ids": ids,
            "files": {each.name: sha256(each) for each in sorted(files)},
            "ignored": sorted(whole.keys() - stored.keys()),
        },
    )


def _config(folder: Path) -> dict[str, Any]:
    """Read config.json."""
    config = _json(folder / "config.json")
    if not isinstance(config, dict):
        found = type(config).__name__
        raise ArchMismatch(folder, [problem("arch-config", "config.json", "an object", found)])
    return config


def _files(folder: Path, stored: Mapping[str, Stored], *, named: Path) -> set[Path]:
    """List the files that are read; refuse to be given any other one."""
    files = {folder / "config.json", *(each.path for each in stored.values())}
    read = files if folder / SINGLE in files else files | {folder / INDEX}
    if named.is_file() and named not in read:
        wanted = f"one of {', '.join(sorted(each.name for each in read))}"
        remedy = "Name the folder, or move this file to one of its own."
        raise InputError(named, expected=wanted, found="a file beside them", remedy=remedy)
    return files


def write_huggingface(
    model: Network,
    folder: Path,
    *,
    tokenizer: Tokenizer | None = None,
    sequence_length: int | None = None,
    special_ids: Mapping[str, Any] | None = None,
) -> None:
    """Write config.json and model.safetensors as `transformers` reads them.

    Parameters
    ----------
    model : Network
        Of the shape of a Llama, a Qwen2 or a Qwen3.
    folder : Path
        Made where missing.
    tokenizer : Tokenizer, optional
        Its first token is stated; a tokenizer.json is written beside.
    sequence_length : int, optional
        Context to state [token].
    special_ids : mapping, optional
        Such as ``eos_token_id``, as the notes of a `Foreign` have them.

    Raises
    ------
    ArchMismatch
        If the configuration belongs to none of these families; nothing is written.
    """
    config = to_huggingface(model.config)
    config["dtype"] = str(model.head_weight.dtype).removeprefix("torch.")
    config |= {"max_position_embeddings": sequence_length} if sequence_length else {}
    # Without a word transformers takes an end for granted that this model may not have.
    config |= {"bos_token_id": tokenizer and tokenizer.bos, "eos_token_id": None}
    config |= {name: each for name, each in (special_ids or {}).items() if each is not None}
    tensors = {foreign_name(n): t.detach().cpu().contiguous() for n, t in state(model).items()}
    with replacing(folder / SINGLE) as scratch:
        save_file(tensors, scratch, metadata={"format": "pt"})
    write_json(folder / "config.json", config)
    if tokenizer is not None and tokenizer.kind == "huggingface":
        tokenizer.save(folder)


def foreign_name(name: str) -> str:
    """Translate the name of a parameter.

    Examples
    --------
    >>> foreign_name("blocks.2.mlp.proj.weight")
    'model.layers.2.mlp.down_proj.weight'
    """
    module, _, leaf = name.rpartition(".")
    if not module.startswith("blocks."):
        return f"{NAMES[module]}.{leaf}"
    _, block, inner = module.split(".", 2)
    return f"model.layers.{block}.{NAMES[inner]}.{leaf}"


def _stored(folder: Path) -> dict[str, Stored]:
    """List the tensors of a folder from the headers of its files, which must fit the index."""
    if (folder / SINGLE).is_file():
        return _header(folder / SINGLE)
    if not (folder / INDEX).exists():
        others = ", ".join(sorted(each.name for each in folder.glob("*.bin"))) or "no weights"
        raise ArchMismatch(folder, [problem("weights-missing", SINGLE, "safetensors", others)])
    index = _json(folder / INDEX)
    mapped = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(mapped, dict) or not all(isinstance(s, str) for s in mapped.values()):
        raise ArchMismatch(folder, [problem("shard-index", INDEX, "a weight_map", "none")])
    shards = sorted(set(mapped.values()))
    odd = [each for each in shards if Path(each).name != each or "\\" in each]
    problems = [problem("shard-escape", "weight_map", "a name in the folder", s) for s in odd]
    there = {each.name for each in folder.iterdir() if each.is_file()}
    lost = [each for each in shards if each not in there and each not in odd]
    problems += [problem("shard-missing", each, "a file", "none") for each in lost]
    family = family_of(mapped)
    if problems:
        raise ArchMismatch(folder, problems, family_found=family)
    headers = {shard: _header(folder / shard) for shard in shards}
    problems = [
        problem("shard-absent", name, f"in {shard}", "not there")
        for name, shard in mapped.items()
        if name not in headers[shard]
    ]
    problems += [
        problem("shard-duplicate" if name in mapped else "shard-unmapped", name, "one place", shard)
        for shard in shards
        for name in headers[shard]
        if mapped.get(name) != shard
    ]
    every = [each for header in headers.values() for each in header.values()]
    size = sum(math.prod(each.shape) * SIZES.get(each.dtype, 0) for each in every)
    about = index.get("metadata")
    declared = about.get("total_size", size) if isinstance(about, dict) else size
    if declared != size and all(each.dtype in SIZES for each in every):
        problems.append(problem("shard-size", "total_size", size, declared))
    if problems:
        raise ArchMismatch(folder, problems, family_found=family)
    return dict(chain.from_iterable(header.items() for header in headers.values()))


def _json(path: Path) -> Any:
    """Read a JSON file of a checkpoint."""
    try:
        check_file(path)
        return read_json(path)
    except OSError as error:
        raise InputError(path, expected="a JSON file", found=f"{error}", remedy=CHECK) from error


def _header(path: Path) -> dict[str, Stored]:
    """Read what a file says it holds."""
    try:
        return {name: Stored(path, *found) for name, found in read_header(path).items()}
    except Exception as error:  # the reader meets damage with several exceptions
        found = [problem("weights-damaged", path.name, "a safetensors file", str(error)[:200])]
        raise ArchMismatch(path, found) from error


def _special(ids: Mapping[str, Any], vocab_size: Any) -> list[dict[str, Any]]:
    """List the special ids that no token has; -1 says none in older files."""
    each = [(key, i) for key, v in ids.items() for i in (v if isinstance(v, list) else [v])]
    size = vocab_size if isinstance(vocab_size, int) else math.inf
    return [
        problem("arch-special-id", key, f"below {vocab_size}", found)
        for key, found in each
        if found not in (None, -1) and not (isinstance(found, int) and 0 <= found < size)
    ]


def _against(said: Claims, stored: Mapping[str, Stored]) -> list[dict[str, Any]]:
    """List everything in which the tensors differ from what the metadata says."""
    layers = {name.split(".")[2] for name in stored if name.startswith("model.layers.")}
    if len(layers) > LAYERS:
        return [problem("arch-tensor", "layers", f"at most {LAYERS}", len(layers))]
    within = f"model.layers.{min(layers, default=0)}"
    telling = [EMBEDDING] + [f"{within}.{NAMES[each]}.weight" for each in SHAPED]
    lacking = [n for n in telling if n not in stored or len(stored[n].shape) != 2]
    if lacking:
        return [problem("arch-tensor", name, "a matrix", "none") for name in lacking]
    (vocab_size, d_model), *others = (stored[name].shape for name in telling)
    rows_query, rows_key, rows_gate = (rows for rows, _ in others)
    implied = {"vocab_size": vocab_size, "hidden_size": d_model}
    implied |= {"num_hidden_layers": len(layers), "intermediate_size": rows_gate}
    head, width = said.values.get("num_attention_heads"), said.values.get("head_dim")
    query_norm = stored.get(f"{within}.self_attn.q_norm.weight")
    if query_norm is not None:
        width = implied["head_dim"] = math.prod(query_norm.shape)
    elif width is None and isinstance(head, int) and head > 0:
        width = d_model // head
    if isinstance(width, int) and width > 0:
        implied["num_attention_heads"] = rows_query // width
        implied["num_key_value_heads"] = rows_key // width
    found = [
        problem("arch-shape", key, value, said.values[key])
        for key, value in implied.items()
        if said.values.get(key, value) != value
    ]
    try:
        with torch.device("meta"):
            own = state(Network(said.model_config(**implied)))
    except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
        return [*found, problem("arch-config", "config.json", "sizes that fit", str(error))]
    return found + _differing({foreign_name(n): tuple(t.shape) for n, t in own.items()}, stored)


def _differing(
    wanted: dict[str, tuple[int, ...]], stored: Mapping[str, Stored]
) -> list[dict[str, Any]]:
    """Compare tensors by name, shape and type; a stored copy of a tied head must be a copy."""
    is_tied = HEAD not in wanted
    if is_tied and HEAD in stored:
        wanted[HEAD] = wanted[EMBEDDING]
    found = []
    for name in sorted(wanted.keys() | stored.keys()):
        shape, held = wanted.get(name), stored.get(name)
        if held is None or shape != held.shape:
            rule = "arch-tie" if name == HEAD else "arch-tensor"
            found.append(problem(rule, name, shape or "no tensor", held and held.shape))
        elif held.dtype not in SIZES:
            found.append(problem("arch-dtype", name, f"one of {', '.join(SIZES)}", held.dtype))
    if is_tied and HEAD in stored and not found:
        head, embedding = (read_tensor(stored[each].path, each) for each in (HEAD, EMBEDDING))
        if not torch.equal(head, embedding):
            found.append(problem("arch-tie", HEAD, f"equal to {EMBEDDING}", "other values"))
    return found
