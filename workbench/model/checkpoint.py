"""Weights and configuration in and out of files; nothing here executes what a file says."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from workbench.folder import InputError, find_run, read_json, replacing, write_json
from workbench.model.config import ModelConfig, from_json, preset, to_json
from workbench.model.network import Network, new_network

READ_AT_ONCE = 2**20  # numbers


def save_state(model: Network, path: Path) -> None:
    """Write the weights as safetensors; a tied head is stored once, as the embedding."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in state(model).items()}
    with replacing(path) as scratch:
        save_file(tensors, scratch)


def state(model: Network) -> dict[str, Tensor]:
    """Return the weights by name, without copies."""
    return dict(model.state_dict())


def save_model(model: Network, folder: Path) -> None:
    """Write ``model.safetensors`` and ``model.json`` into `folder`."""
    save_state(model, folder / "model.safetensors")
    write_json(folder / "model.json", to_json(model.config))


def load_model(folder: Path, *, weights: Path | None = None) -> Network:
    """Read a model written by `save_model`, on the CPU, in evaluation mode.

    Parameters
    ----------
    folder : Path
        Holds ``model.json`` and ``model.safetensors``.
    weights : Path, optional
        Other weights of the same configuration, such as a kept checkpoint.
    """
    config = from_json(read_json(folder / "model.json"))
    path = weights or folder / "model.safetensors"
    return assemble(config, read_state(path, dtype=torch.float32)).eval()


def read_state(path: Path, *, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """Read named tensors from ``.safetensors`` or from a ``.pt`` that holds nothing but tensors.

    Raises
    ------
    InputError
        If the file is missing, damaged, of another kind, or holds something else than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(path, expected="a weights file", found="no file", remedy="Check the path.")
    try:
        if path.suffix == ".safetensors":
            return {name: read_tensor(path, name, dtype=dtype) for name in read_header(path)}
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the readers meet damage with nearly any exception
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise InputError(
            path,
            expected="safetensors, or a PyTorch file of plain tensors",
            found=reason,
            remedy="Save the state dict again; pickled code is never loaded.",
        ) from error
    if not isinstance(found, dict) or not all(isinstance(t, Tensor) for t in found.values()):
        raise InputError(
            path,
            expected="a dict of tensors (a state dict)",
            found=type(found).__name__,
            remedy="Save model.state_dict().",
        )
    return apart(found)


def apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors that share memory, which could be neither saved again nor trained apart."""
    places = Counter(tensor.untyped_storage().data_ptr() for tensor in tensors.values())
    shared = {n for n, t in tensors.items() if places[t.untyped_storage().data_ptr()] > 1}
    return {name: t.clone() if name in shared else t for name, t in tensors.items()}


def read_header(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Read name, shape and dtype (``F32``, ``BF16``, ...) of every tensor of a safetensors file."""
    with safe_open(path, "pt") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        return {name: (tuple(s.get_shape()), s.get_dtype()) for name, s in slices.items()}


def sha256(path: Path) -> str:
    """Hash a file without holding it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_tensor(path: Path, name: str, *, dtype: torch.dtype | None = None) -> Tensor:
    """Read one tensor into memory of its own."""
    with safe_open(path, "pt") as file:
        mapped = file.get_tensor(name)
        wanted = dtype if mapped.is_floating_point() else None  # integers are no weights
        own = torch.empty(mapped.shape, dtype=wanted or mapped.dtype)
    flat = own.view(-1)
    for first in range(0, len(flat), READ_AT_ONCE):
        # What is read of a mapped file stays in memory until the mapping ends: one mapping a part.
        with safe_open(path, "pt") as file:
            part = slice(first, first + READ_AT_ONCE)
            flat[part] = file.get_tensor(name).flatten()[part]
    return own


def assemble(config: ModelConfig, tensors: Mapping[str, Tensor]) -> Network:
    """Make a network that holds these very tensors: nothing is drawn, nothing is copied.

    Raises
    ------
    InputError
        If names are missing, left over, shaped otherwise, or not of floating point.
    """
    with torch.device("meta"):
        network = Network(config)
    _fit(state(network), tensors)
    network.load_state_dict(dict(tensors), assign=True)
    return network


def load_state(model: Network, tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors into the model; every name and shape must agree, all mismatches are listed.

    Raises
    ------
    InputError
        If names are missing, left over, or shaped otherwise. The model is then unchanged.
    """
    own = state(model)
    _fit(own, tensors)
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])


def _fit(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Compare names and shapes of tensors with those of a network."""
    problems = [f"missing {name}" for name in own if name not in tensors]
    problems += [f"unexpected {name}" for name in tensors if name not in own]
    problems += [
        f"{name} is {tuple(tensors[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    problems += [f"{n} holds {t.dtype}" for n, t in tensors.items() if not t.is_floating_point()]
    if problems:
        raise InputError(
            "weights",
            expected=f"the {len(own)} tensors of this configuration",
            found="; ".join(problems[:8]) + (" ..." if len(problems) > 8 else ""),
            remedy="Set the model fields to the ones these weights were made with.",
        )


def config_from_state(tensors: Mapping[str, Tensor], **unknowable: Any) -> ModelConfig:
    """Recover the shape of a network from its tensors.

    Parameters
    ----------
    tensors : mapping
        A state dict with the official key names.
    **unknowable
        Fields that no shape tells, such as `rope_base` or `softcap`; else their defaults.

    Raises
    ------
    InputError
        If the tensors are not those of such a network.
    """
    blocks = [f"blocks.0.{name}" for name in ("attn.q_gain", "attn.c_k.weight", "mlp.fc.weight")]
    missing = [name for name in ("tok_emb.weight", *blocks) if name not in tensors]
    if missing:
        raise InputError(
            "weights",
            expected="tensors with the official names",
            found=f"{len(tensors)} tensors, none named {', '.join(missing)}",
            remedy="Name a state dict of this kind of network.",
        )
    vocab_size, d_model = tensors["tok_emb.weight"].shape
    n_layer = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("blocks."))
    n_head = tensors["blocks.0.attn.q_gain"].shape[0]
    return preset(
        "baseline",
        n_layer=n_layer,
        n_head=n_head,
        n_kv_head=tensors["blocks.0.attn.c_k.weight"].shape[0] // (d_model // n_head),
        d_model=d_model,
        vocab_size=vocab_size,
        feedforward_multiple=tensors["blocks.0.mlp.fc.weight"].shape[0] // d_model,
        tie_embeddings="lm_head.weight" not in tensors,
        output_bias="lm_bias" in tensors,
        **unknowable,
    )


def starting_point(
    config: ModelConfig, *, seed: int, parent: str = "", initial_state: str = ""
) -> Network:
    """Make the network a run begins with: fresh, or with the weights of a run or a file.

    Raises
    ------
    InputError
        If both origins are given, or the weights do not fit `config`.
    """
    if parent and initial_state:
        raise InputError(
            "parent, initial_state",
            expected="one origin of the weights",
            found="two",
            remedy="Leave one of them out.",
        )
    if not (parent or initial_state):
        return new_network(config, seed=seed)
    origin = find_run(parent).path / "model.safetensors" if parent else Path(initial_state)
    return assemble(config, read_state(origin)).float()
