"""Parameter Golf checkpoints, in and out: ``final_model.pt`` and ``final_model.int8.ptz``.

Neither file says how its network is to be run. Sizes follow from the shapes; the rest is taken
from the log beside the file, else from the official defaults, and marked as assumed.
"""

import io
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from pickletools import genops
from typing import Any

import torch
from torch import Tensor

from workbench.folder import InputError, replacing
from workbench.foreign import parameter_golf_log
from workbench.foreign.loaded import CHECK, LAYERS, Foreign, check_file, check_length
from workbench.foreign.parameter_golf_int8 import dequantize, quantize
from workbench.model.checkpoint import apart, assemble, config_from_state, sha256, state
from workbench.model.config import ModelConfig, preset, to_json
from workbench.model.network import Network
from workbench.text import load_tokenizer

FILES = ("final_model.pt", "final_model.int8.ptz", "train.log")
SUBMISSION_BYTES = 16_000_000  # most that compressed weights and script may have together
SHAPES = "n_layer n_head n_kv_head d_model vocab_size feedforward_multiple tie_embeddings".split()
UNTOLD = {  # what no shape tells: the script's variable, its official default
    "rope_base": ("ROPE_BASE", 10000.0),
    "softcap": ("LOGIT_SOFTCAP", 30.0),
    "sequence_length": ("TRAIN_SEQ_LEN", 1024),
}
# Where the official repository keeps things, the nearest place first.
LOGS = ("*.log", "*.txt", "logs/*")
TOKENIZERS = ("*.model", "data/*.model", "data/tokenizers/*.model")
SHARDS = ("*_val_000000.bin", "data/*_val_000000.bin", "data/datasets/*/*_val_000000.bin")
PACKED_BYTES, FILE_BYTES = 2**28, 2**31  # at most read of weights
PICKLE_BYTES = 2**22  # at most read of their names and shapes
NAMED = re.compile(  # all that the pickle of a dict of tensors calls
    r"collections OrderedDict|torch \w+Storage|torch\._utils _rebuild_(tensor_v2|parameter)"
)
TEXT_CHARACTERS = 2**23  # at most read of a log
# A network at its start is mostly zeros, so a small file may inflate at any ratio.
INFLATED_BYTES, INFLATED_RATIO = 2**26, 32


def read_parameter_golf(
    path: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    log: str | Path | None = None,
    tokenizer: str | Path | None = None,
    corpus: str | Path | None = None,
    **overrides: Any,
) -> Foreign:
    """Read a checkpoint of the official script and find what belongs to it.

    Parameters
    ----------
    path : str or Path
        A ``.pt`` state dict, or a ``.ptz`` artifact in the official int8 format.
    dtype : torch.dtype
        Of the weights in memory, whatever the file holds.
    log, tokenizer, corpus : str or Path, optional
        Instead of the ones beside the file, in its ``logs/`` and in ``data/`` as the official
        repository has it. There, a log belongs that counts as many parameters, a tokenizer that
        has as many ids.
    **overrides
        What no shape tells: `sequence_length` [token], and fields of `ModelConfig` such as
        `rope_base`.

    Returns
    -------
    Foreign
        ``notes`` has ``files`` (SHA-256 by name), ``training``, ``recorded_bytes`` and
        ``recorded_bits_per_byte``.

    Raises
    ------
    InputError
        If the file is missing, damaged, larger inside than it may be or of another network, or
        several files may belong to it.
    """
    path = Path(path)
    check_length(path, overrides.get("sequence_length"))
    tensors, shape, size = _shaped(path)
    log = log or _beside(path, LOGS, "log", lambda each: _n_parameter(each) == size)
    if log:
        check_file(Path(log))
    text = _text(Path(log)) if log else ""
    told = {name: parameter_golf_log.setting(text, *UNTOLD[name]) for name in UNTOLD}
    values = {name: value for name, (value, _) in told.items()} | overrides
    for name in sorted(told.keys() - overrides.keys()):
        if not values[name] > 0:  # nor is NaN
            found, remedy = f"another value of {name}", f"Give it: -p {name} VALUE."
            raise InputError(log, expected="a positive number", found=found, remedy=remedy)
    length = int(values.pop("sequence_length"))
    with _reading(path):
        config = preset("baseline", **{**shape, **values})
        network = assemble(config, tensors).to(dtype).eval()
    fits = partial(_has_ids, config.vocab_size)
    tokenizer = tokenizer or _beside(path, TOKENIZERS, "tokenizer", fits)
    corpus = corpus or getattr(_beside(path, SHARDS, "corpus"), "parent", None)
    metrics = parameter_golf_log.metrics(text)
    files = [path, Path(log)] if log else [path]
    return Foreign(
        network=network,
        format="parameter-golf",
        sources=dict.fromkeys(shape, "official network")
        | dict.fromkeys([*SHAPES, "output_bias"], "weights")
        | {name: source for name, (_, source) in told.items()}
        | dict.fromkeys(overrides, "given"),
        tokenizer=Path(tokenizer) if tokenizer else None,
        corpus=Path(corpus) if corpus else None,
        sequence_length=length,
        metrics=metrics,
        notes={
            "files": {each.name: sha256(each) for each in files},
            **parameter_golf_log.notes(text, metrics, is_quantized=path.suffix == ".ptz"),
        },
    )


def _shaped(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], int]:
    """Read tensors, the shape of the network that they tell, and how many numbers they hold."""
    with _reading(path):
        tensors = _tensors(path)
        size = sum(tensor.numel() for tensor in tensors.values())
        shape = to_json(config_from_state(tensors))
        if shape["n_layer"] > min(len(tensors), LAYERS):
            raise ValueError(f"{len(tensors)} tensors for {shape['n_layer']} blocks")
    return apart(tensors), shape, size


def _has_ids(count: int, path: Path) -> bool:
    """Tell whether a tokenizer has so many ids."""
    return path.is_file() and load_tokenizer(path).vocab_size == count


@contextmanager
def _reading(path: Path, what: str = "weights as the official script saves them") -> Iterator[None]:
    """Turn every way in which a damaged file fails into one."""
    try:
        yield
    except InputError as error:  # which may not know the file
        found = error.found if error.where == str(path) else f"{error.where} with {error.found}"
        raise InputError(path, expected=error.expected, found=found, remedy=error.remedy) from error
    except Exception as error:  # the readers meet damage with nearly any exception
        found = getattr(error, "strerror", None) or f"{error}" or type(error).__name__
        found = found.partition("\n")[0][:200]
        raise InputError(path, expected=what, found=found, remedy=CHECK) from error


def _tensors(path: Path) -> dict[str, Tensor]:
    """Load a state dict or an int8 payload, none larger than it looks."""
    is_packed = path.suffix == ".ptz"
    check_file(path, most=PACKED_BYTES if is_packed else FILE_BYTES)
    raw = path.read_bytes()
    if is_packed:
        engine, packed = zlib.decompressobj(), raw
        raw = engine.decompress(packed, max(INFLATED_BYTES, INFLATED_RATIO * len(packed)))
        if not engine.eof or engine.unused_data:
            raise ValueError("a compressed stream that is truncated, too large, or not alone")
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        # What stands before an archive PyTorch would read in its place.
        if sum(m.file_size for m in archive.infolist()) > len(raw) or not raw.startswith(b"PK"):
            raise ValueError("members larger than the file, or not at its beginning")
        if broken := archive.testzip():  # PyTorch does not look at checksums
            raise ValueError(f"{broken} with a wrong checksum")
        (pickled,) = (each for each in archive.infolist() if each.filename.endswith("/data.pkl"))
        if pickled.file_size > PICKLE_BYTES:
            raise ValueError(f"{pickled.file_size:,} bytes of names, more than {PICKLE_BYTES:,}")
        calls = genops(archive.read(pickled))
        named = {str(what) for code, what, _ in calls if code.name == "GLOBAL"}
        if odd := {each for each in named if not NAMED.fullmatch(each)}:
            raise ValueError(f"{min(odd)}, which is no part of a tensor")  # it may allocate
    found = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
    groups = [each for each in found.values() if isinstance(each, dict)] if is_packed else [found]
    tensors = [each for group in groups for each in group.values() if isinstance(each, Tensor)]
    plain = [each for each in tensors if each.layout is torch.strided and each.device.type == "cpu"]
    if len(plain) < len(tensors) or sum(each.nbytes for each in plain) > len(raw):
        raise ValueError("tensors larger than the file")
    return dequantize(found) if is_packed else dict(found)


def _beside(
    path: Path, patterns: tuple[str, ...], what: str, fits: Callable[[Path], bool] = Path.is_file
) -> Path | None:
    """Find the one file that fits, in the nearest place that has any."""
    for pattern in patterns:
        found = [each for each in sorted(path.parent.glob(pattern)) if fits(each)]
        if len(found) > 1:
            raise InputError(
                path,
                expected=f"one {what} beside it",
                found="an ambiguous choice: " + ", ".join(map(str, found)),
                remedy=f"Name it: -p {what} PATH.",
            )
        if found:
            return found[0]
    return None


def _text(path: Path) -> str:
    """Read a log or a script; line ends become one character, as where Python reads a script."""
    with _reading(path, "a text"), path.open(encoding="utf-8", errors="replace") as file:
        return file.read(TEXT_CHARACTERS)


def _n_parameter(log: Path) -> float:
    """Read how many parameters the run of a log had, 0 where it does not say."""
    return parameter_golf_log.setting(_text(log), "MODEL_PARAMS", 0)[0] if log.is_file() else 0


def write_parameter_golf(
    model: Network,
    folder: Path,
    *,
    code: Path | None = None,
    sequence_length: int | None = None,
    embedding_dtype: torch.dtype = torch.bfloat16,
) -> dict[str, Any]:
    """Write ``final_model.pt`` and ``final_model.int8.ptz`` as the official script does.

    What these cannot say stands in a ``train.log`` beside them, which `read_parameter_golf` reads.

    Parameters
    ----------
    model : Network
        Of the official shape; nothing but sizes, `rope_base` and `softcap` may differ.
    folder : Path
        Made if it is not there.
    code : Path, optional
        The training script, which counts towards the size of a submission.
    sequence_length : int, optional
        Context to state [token].
    embedding_dtype : torch.dtype
        The official script trains the embedding in bfloat16, and stores it so.

    Returns
    -------
    dict
        ``files`` (bytes by name), ``code_bytes`` (0 without `code`), ``submission_bytes``
        (compressed weights and script) and ``submission_limit``.

    Raises
    ------
    InputError
        If the network has a part that the official one lacks, or the script cannot be read.
    """
    own, official = to_json(model.config), to_json(ModelConfig())
    free = {*SHAPES, *UNTOLD}
    others = [name for name in own if name not in free and own[name] != official[name]]
    others += ["softcap"] if own["softcap"] is None else []
    if others:
        raise InputError(
            "model",
            expected="a network of the official shape",
            found=", ".join(f"{name} {own[name]!r}" for name in others),
            remedy="Train without these, or keep the run's own format.",
        )
    script = len(_text(code).encode()) if code else 0
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state(model).items()}
    tensors["tok_emb.weight"] = tensors["tok_emb.weight"].to(embedding_dtype)
    size = sum(tensor.numel() for tensor in tensors.values())
    told = {"model_params": size, "train_seq_len": sequence_length}
    told |= {"rope_base": own["rope_base"], "logit_softcap": own["softcap"]}
    log = "".join(f"{name}:{value}\n" for name, value in told.items() if value is not None)
    packed = zlib.compress(_saved(quantize(tensors)), 9)
    files = dict(zip(FILES, (_saved(tensors), packed, log.encode()), strict=True))
    for name, content in files.items():
        with replacing(folder / name) as scratch:
            scratch.write_bytes(content)
    sizes = {name: len(content) for name, content in files.items()}
    return {
        "files": sizes,
        "code_bytes": script,
        "submission_bytes": sizes[FILES[1]] + script,
        "submission_limit": SUBMISSION_BYTES,
    }


def _saved(value: object) -> bytes:
    """Return what PyTorch would write; it names a file's content after the file otherwise."""
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()
