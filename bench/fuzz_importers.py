"""Damage checkpoints at random and read them: each must load finite weights or be refused.

::

    .venv/bin/python bench/fuzz_importers.py 600 --seed 1

Small valid checkpoints (Hugging Face folders of three families, single and sharded, each with a
tokenizer.json, and both Parameter Golf files) are damaged by one to three steps a case and brought
into a run as `import` does. Cases run in children with a limit of address space, many a child, and
a limit of time a case. A finding is any other end: another exception, memory or time without bound,
a crash, a file left behind. It is reduced to the fewest steps that show it; ``--replay CASE`` with
its seed runs it again.
"""

import argparse
import faulthandler
import io
import json
import os
import random
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from copy import deepcopy
from itertools import combinations, product
from pathlib import Path
from typing import Any

import tokenizers
import torch
from record import write_result
from safetensors.torch import load_file, save_file

from workbench.folder import InputError, runs_root
from workbench.foreign import (
    ArchMismatch,
    preflight_tokenizer,
    write_huggingface,
    write_parameter_golf,
)
from workbench.model import new_network, preset
from workbench.text import load_tokenizer, open_data
from workbench.training import adopt, read_foreign

HEADROOM = 2**30  # bytes of address space that a child may take beyond what its imports took
DATA_ERRORS = ("model field 'vocab_size'", "validation split")  # of the corpus that is judged on
SLOWEST = 8  # seconds a case may take
LARGEST = 2**25  # bytes of a file that a step may still read and change
REDUCED = 8  # kinds of findings that are reduced
CHILD = 400  # cases a child
MEMORY = ("memory", "MemoryError", "bad_alloc", "allocate")
VALUES = (
    *(None, True, False, 0, 1, -1, 2, 3, 17, 2**31, 2**63, 2**64, 10**30, -(2**63), 10**400),
    *(0.5, 1e308, float("nan"), float("inf"), "", "a", "../a", "\ud800", [], {}, [[]], [1, 2]),
    *({"a": 1}, ["a"], "model.safetensors", "llama", "qwen2", "qwen3", "linear", "llama3"),
)
PLACES = ("../out.safetensors", "/dev/zero", "", ".", "..", "a/b", "C:\\x", "\0", "link", "x" * 300)

Step = Callable[[random.Random, Path], None]
Steps = Sequence[int] | None  # numbers of the steps that are taken; None for all


# --- valid checkpoints -----------------------------------------------------------------------


def make_bases(folder: Path) -> None:
    """Write every valid checkpoint, and a corpus to judge them on."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=_letters(), merges=[]))
    made.decoder = tokenizers.decoders.ByteLevel()
    made.add_special_tokens(["<s>"])
    sizes = {"n_layer": 2, "n_head": 2, "n_kv_head": 1, "d_model": 16, "vocab_size": 300}
    for family, tied, shards in (
        ("llama", True, 0),
        ("llama", False, 3),
        ("qwen2", True, 3),
        ("qwen2", False, 0),
        ("qwen3", True, 0),
        ("qwen3", False, 2),
    ):
        fields = {**sizes, "feedforward_width": 24, "tie_embeddings": tied}
        at = folder / f"{family}-{shards}"
        write_huggingface(_drawn(family, fields), at, sequence_length=32)
        made.save(str(at / "tokenizer.json"))
        if shards:
            _shard(at, shards)
    golf = _drawn("baseline", {**sizes, "vocab_size": 5000})  # one matrix is quantised
    for name in ("final_model.pt", "final_model.int8.ptz"):
        write_parameter_golf(golf, folder / name, sequence_length=32)
        for other in {"final_model.pt", "final_model.int8.ptz"} - {name}:
            (folder / name / other).unlink()
        made.save(str(folder / name / "tokenizer.json"))
    corpus = folder.parent / "corpus"
    corpus.mkdir()
    for split in ("train", "validation"):
        (corpus / f"{split}.txt").write_text("an old tree by a river\n\n" * 150)


def _letters() -> dict[str, int]:
    return {chr(0x21 + at): at for at in range(200)}


def _drawn(name: str, fields: dict[str, Any]) -> Any:
    network = new_network(preset(name, **fields), seed=0).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0.0, 0.3, generator=torch.Generator().manual_seed(1))
    return network


def _shard(folder: Path, n: int) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    mapped = {}
    for at in range(n):
        file = f"model-{at + 1:05d}-of-{n:05d}.safetensors"
        some = {name: tensors[name].clone() for name in sorted(tensors)[at::n]}
        save_file(some, folder / file)
        mapped |= dict.fromkeys(some, file)
    path.unlink()
    size = sum(each.nbytes for each in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": mapped}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


# --- damage ----------------------------------------------------------------------------------


def flip(rng: random.Random, path: Path) -> None:
    """Change single bits, more often near the beginning, where headers are."""
    raw = bytearray(path.read_bytes())
    for _ in range(rng.randint(1, 8)):
        if raw:
            span = len(raw) if rng.random() < 0.5 else min(len(raw), 2048)
            raw[rng.randrange(span)] ^= 1 << rng.randrange(8)
    path.write_bytes(raw)


def splice(rng: random.Random, path: Path) -> None:
    """Cut the file, repeat a part, blank a part, append to it or empty it."""
    raw = path.read_bytes()
    at, to = sorted(rng.randint(0, len(raw)) for _ in range(2))
    path.write_bytes(
        rng.choice(
            [
                raw[:to],
                raw[at:],
                raw[:to] + raw[at:],
                raw[:at] + bytes(to - at) + raw[to:],
                raw[:at] + b"\xff" * (to - at) + raw[to:],
                raw + rng.randbytes(rng.randint(1, 64)),
                b"",
            ]
        )
    )


def bend_json(rng: random.Random, path: Path) -> None:
    """Put another value, or another name, somewhere into a JSON file; or nest it deeply."""
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return flip(rng, path)
    if rng.random() < 0.03:
        path.write_text("[" * 100_000 + "]" * 100_000)
        return None
    for _ in range(rng.randint(1, 3)):
        _bend(rng, value)
    path.write_text(json.dumps(value))
    return None


def _bend(rng: random.Random, value: Any) -> None:
    """Walk to a random place of a JSON value and change what is there."""
    while isinstance(value, dict | list) and value:
        key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
        if isinstance(value[key], dict | list) and value[key] and rng.random() < 0.9:
            value = value[key]
            continue
        match rng.randrange(4):
            case 0 if isinstance(value, dict):
                del value[key]
            case 1 if isinstance(value, dict):
                value[rng.choice([*PLACES, key + "x"])] = value.pop(key)
            case 2:
                value[key] = deepcopy(rng.choice([value[each] for each in _keys(value)]))
            case _:
                value[key] = deepcopy(rng.choice(VALUES))  # never the same list in two places
        return


def _keys(value: Any) -> list[Any]:
    return list(value) if isinstance(value, dict) else list(range(len(value)))


def bend_config(rng: random.Random, path: Path) -> None:
    """Set a known key of config.json to a hostile value."""
    key = rng.choice(
        "vocab_size hidden_size num_hidden_layers num_attention_heads num_key_value_heads "
        "intermediate_size head_dim rope_theta rms_norm_eps tie_word_embeddings rope_scaling "
        "rope_parameters layer_types sliding_window bos_token_id eos_token_id model_type dtype "
        "architectures max_position_embeddings quantization_config attention_bias".split()
    )
    nested = {rng.choice(["rope_type", "type", "factor", "rope_theta"]): rng.choice(VALUES)}
    value = rng.choice([*VALUES, nested, {"rope_type": "linear", "factor": rng.choice(VALUES)}])
    _edit(path, lambda config: config.update({key: value}))


def bend_index(rng: random.Random, path: Path) -> None:
    """Send a tensor to another shard, to none, or out of the folder."""

    def edit(index: dict[str, Any]) -> None:
        mapped = index["weight_map"]
        name = rng.choice(list(mapped))
        mapped[name] = rng.choice([*PLACES, *mapped.values(), *VALUES])
        if rng.random() < 0.3:
            index["metadata"] = rng.choice([*VALUES, {"total_size": rng.choice(VALUES)}])

    _edit(path, edit)


def _edit(path: Path, change: Callable[[Any], None]) -> None:
    """Change a JSON file where it still is one."""
    try:
        value = json.loads(path.read_bytes())
        change(value)
        path.write_text(json.dumps(value))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        return


def bend_header(rng: random.Random, path: Path) -> None:
    """Let the header of a safetensors file lie: its length, or a type, shape, place or name."""
    raw = path.read_bytes()
    if rng.random() < 0.2 or len(raw) < 8:
        length = rng.choice([0, 1, 7, 2**31, 2**40, 2**63, 2**64 - 1, len(raw), len(raw) - 8])
        path.write_bytes(struct.pack("<Q", length) + raw[8:])
        return
    size = int.from_bytes(raw[:8], "little")
    try:
        header = json.loads(raw[8 : 8 + size])
        for _ in range(rng.randint(1, 3)):
            _bend_entry(rng, header)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        return
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + size :])


def _bend_entry(rng: random.Random, header: dict[str, Any]) -> None:
    name = rng.choice(list(header))
    entry = header[name]
    match rng.randrange(8):
        case 0:
            entry["dtype"] = rng.choice("I32 F64 BF16 F16 I8 U8 F8_E4M3 BOOL F32 C64 X".split())
        case 1:
            entry["shape"] = rng.choice(
                [entry["shape"][::-1], [], [0], [2**40, 2**40], [-1, -1], [2**62, 0], [1, *VALUES]]
            )
        case 2:
            entry["data_offsets"] = rng.choice([[0, 2**60], [8, 0], [0, 0], [-8, 8], [0], VALUES])
        case 3:
            header[rng.choice([name.replace("0", "7"), name.replace("0", "99999"), "a"])] = entry
            del header[name]
        case 4:
            end = entry["data_offsets"][1]
            for number in range(rng.choice([1, 100, 3000])):  # layers that hold nothing
                header[f"model.layers.{number + 2}.self_attn.q_proj.weight"] = {
                    **{"dtype": "F32", "shape": [0], "data_offsets": [end, end]}
                }
        case 5:
            other = rng.choice(list(header))
            header[name] = header[other]
        case _:
            _bend(rng, header)


def spoil(rng: random.Random, path: Path) -> None:
    """Write NaN or infinity among the weights."""
    raw = bytearray(path.read_bytes())
    if len(raw) > 64:
        at = len(raw) - 4 * rng.randint(1, (len(raw) // 2) // 4)
        bad = rng.choice([float("nan"), float("inf"), float("-inf"), 1e38])
        raw[at : at + 4] = struct.pack("<f", bad)
    path.write_bytes(raw)


def replace_file(rng: random.Random, path: Path) -> None:
    """Put something else than a file where it was."""
    outside = path.parent.parent / "out.safetensors"
    raw = path.read_bytes()
    path.unlink()
    match rng.randrange(8):
        case 0:
            path.mkdir()
        case 1:
            os.mkfifo(path)
        case 2:
            path.symlink_to("/dev/zero")
        case 3:
            path.symlink_to(path)
        case 4:
            path.symlink_to(path.with_name("absent"))
        case 5:
            path.symlink_to(path.parent)
        case 6:  # as the cache of the hub does: this is no damage
            outside.write_bytes(raw)
            path.symlink_to(outside)
        case _:
            with path.open("wb") as file:  # a hole: no bytes on the disk
                file.write(raw)
                # What is mapped counts as address space, though it takes no memory.
                is_mapped = path.suffix == ".safetensors"
                file.truncate(
                    rng.choice([2**24, 2**28] if is_mapped else [2**24, 2**31 + 1, 2**34])
                )


class _Call:
    """Pickled as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def bend_pickle(rng: random.Random, path: Path) -> None:
    """Save other things than plain tensors, in the format of the file."""
    try:
        raw = path.read_bytes()
        raw = zlib.decompress(raw) if path.suffix == ".ptz" else raw
        value = torch.load(io.BytesIO(raw), weights_only=True)
    except Exception:
        return flip(rng, path)
    groups = [value, *(each for each in value.values() if isinstance(each, dict))]
    group = rng.choice([each for each in groups if each])
    name = rng.choice(list(group))
    shape = rng.choice([(), (0,), (1, 1), (3, 5), (2**62, 0), (1,) * 30])
    odd = [
        lambda: torch.ones(1).expand(2**20, 2**20),
        lambda: torch.zeros(shape),
        lambda: torch.zeros(4, 4).to_sparse(),
        lambda: torch.zeros(4, 4, device="meta"),
        lambda: torch.zeros(4, 4, dtype=rng.choice([torch.int8, torch.complex64, torch.bool])),
        lambda: torch.zeros(4, 4).to(torch.float8_e4m3fn),
        lambda: torch.nn.Parameter(torch.zeros(4, 4)),
        lambda: torch.full((16, 16), float("nan")),
        lambda: _Call(bytearray, 2 ** rng.choice([20, 34, 40])),
        lambda: _Call(torch.FloatTensor, 2**34),
        lambda: _Call(print, "run"),
        lambda: rng.choice(VALUES[:-8]),
        lambda: group[rng.choice(list(group))],
    ]
    match rng.randrange(4):
        case 0:
            del group[name]
        case 1:
            key = rng.choice([name + "x", "blocks.99999.attn.q_gain", "blocks.x.y", 3, ""])
            group[key] = group.pop(name)
        case _:
            group[name] = rng.choice(odd)()
    try:
        stream = io.BytesIO()
        torch.save(value, stream)
    except Exception:  # not everything can be saved
        return None
    content = stream.getvalue()
    path.write_bytes(zlib.compress(content) if path.suffix == ".ptz" else content)
    return None


def bend_archive(rng: random.Random, path: Path) -> None:
    """Damage what lies inside: a member of the archive, or the archive inside a stream."""
    try:
        raw = path.read_bytes()
        raw = zlib.decompress(raw) if path.suffix == ".ptz" else raw
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
    except Exception:
        return flip(rng, path)
    name = rng.choice([each for each in members if each.endswith("data.pkl")] or list(members))
    name = name if rng.random() < 0.7 else rng.choice(list(members))
    scratch = path.with_name(".member")
    scratch.write_bytes(members[name])
    rng.choice([flip, splice, _integers])(rng, scratch)
    members[name] = scratch.read_bytes()
    scratch.unlink()
    if rng.random() < 0.2:
        members[rng.choice(["archive/data/9", "../out", "/out", "archive/version"])] = b"\0" * 2**24
    stream = io.BytesIO()
    kind = rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    with zipfile.ZipFile(stream, "w", kind) as archive:
        for each, content in members.items():
            archive.writestr(each, content)
    content = stream.getvalue()
    path.write_bytes(zlib.compress(content) if path.suffix == ".ptz" else content)
    return None


def _integers(rng: random.Random, path: Path) -> None:
    """Change the numbers that a pickle pushes: sizes, strides, offsets, references."""
    raw = bytearray(path.read_bytes())
    spots = [at for at in range(len(raw) - 5) if raw[at] in b"KMJ"]
    for at in rng.sample(spots, min(len(spots), rng.randint(1, 3))):
        if raw[at] == ord("J"):
            raw[at + 1 : at + 5] = struct.pack("<i", rng.choice([0, -1, 2**30, 2**31 - 1, 7]))
        else:
            raw[at + 1] = rng.randrange(256)
    path.write_bytes(raw)


def bomb(rng: random.Random, path: Path) -> None:
    """Compress zeros, alone or after what was there."""
    size = rng.choice([2**20, 2**26, 2**28])
    before = rng.choice([b"", path.read_bytes()])
    path.write_bytes(before + zlib.compress(b"\0" * size, 1))


def bend_log(rng: random.Random, path: Path) -> None:
    """Tell other settings."""
    name = rng.choice("model_params rope_base logit_softcap train_seq_len seed".split())
    value = rng.choice(["0", "-1", "nan", "1e999", "9" * 400, "1e30", "1.5", "x", "0.1", "2"])
    path.write_text(f"{path.read_text(errors='replace')}\n{name}:{value}\n")


STEPS: dict[str, tuple[Step, ...]] = {  # ending of a file: what may befall it, besides the general
    "config.json": (bend_config,) * 6 + (bend_json,),
    "index.json": (bend_index,) * 6 + (bend_json,),
    "tokenizer.json": (bend_json,) * 2,
    ".safetensors": (bend_header,) * 6 + (spoil,),
    ".pt": (bend_pickle,) * 4 + (bend_archive,) * 4 + (spoil,),
    ".ptz": (bend_pickle,) * 4 + (bend_archive,) * 4 + (bomb,),
    ".log": (bend_log,) * 3,
}
GENERAL: tuple[Step, ...] = (flip, splice, replace_file)


def damage(folder: Path, seed: int, case: int, only: Steps) -> list[str]:
    """Apply the steps of a case, or some of them; each draws from a generator of its own."""
    told = []
    for number in range(random.Random(f"{seed} {case} steps").choice([1, 1, 2, 3])):
        rng = random.Random(f"{seed} {case} {number}")
        plain = (each for each in folder.iterdir() if each.is_file() and not each.is_symlink())
        files = sorted(each for each in plain if each.stat().st_size < LARGEST)
        weighty = [each for each in files if each.name != "tokenizer.json" or rng.random() < 0.3]
        path = rng.choice(weighty or files or [folder])
        known = [steps for ending, steps in STEPS.items() if path.name.endswith(ending)]
        step = rng.choice([*GENERAL, *(known[0] if known else ())])
        if path != folder and (only is None or number in only):
            step(rng, path)
            told.append(f"{number}: {step.__name__} {path.name}")
    return told


# --- one case --------------------------------------------------------------------------------


def outcome(place: Path, case: int, seed: int, only: Steps, data: Any) -> str:
    """Damage one checkpoint and import it; say how that ended."""
    rng = random.Random(f"{seed} {case} base")
    base = rng.choice(sorted((place / "bases").iterdir()))
    folder, scratch = place / "case" / base.name, place / "scratch"
    shutil.rmtree(place / "case", ignore_errors=True)
    shutil.copytree(base, folder)
    damage(folder, seed, case, only)
    before = _listing(place)
    is_folder = not base.name.startswith("final_model") and rng.random() < 0.95
    path = folder if is_folder else folder / (base.name if "." in base.name else "config.json")
    given = {"tokenizer": folder / "tokenizer.json"} if base.name.startswith("final") else {}
    try:
        foreign = read_foreign(path, dtype=rng.choice(["float32", "bfloat16"]), **given)
        assert foreign.tokenizer is not None
        loaded = load_tokenizer(foreign.tokenizer)
        beside = {"model_path": path, "tokenizer_path": foreign.tokenizer}
        preflight_tokenizer(loaded, foreign.network.config, **beside)
        run = adopt("fuzzed", foreign, data, path=path)
        foreign.network(torch.arange(5)[None])
        said = "loaded"
        shutil.rmtree(run.path)
    except InputError as error:
        told = getattr(error, "rule_id", "") or "refused"
        said = f"refused: {told}" if isinstance(error, ArchMismatch) else "refused"
        if any(word in error.found for word in MEMORY):
            said = f"MEMORY {error.found[:200]}"
        elif str(place / "case") not in str(error) and error.where not in DATA_ERRORS:
            said = f"UNNAMED {str(error)[:200]}"
    except MemoryError:
        said = "MEMORY"
    except Exception as error:
        frame = _frame(error)
        said = f"EXCEPTION {type(error).__name__} at {frame}: {str(error)[:200]}"
    if said.startswith("refused") and runs_root().exists() and any(runs_root().iterdir()):
        said = "LEFT a run folder"
    shutil.rmtree(runs_root(), ignore_errors=True)
    if _listing(place) != before or any(scratch.iterdir()):
        said = f"LEFT files, after {said}"
    return said


def _listing(place: Path) -> list[str]:
    return sorted(str(path) for path in (place / "case").rglob("*"))


def _frame(error: BaseException) -> str:
    """Name the last line of the library that an exception passed."""
    at, trace = "", error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if "/workbench/" in name:
            at = f"{Path(name).name}:{trace.tb_frame.f_code.co_name}"
        trace = trace.tb_next
    return at


def child(place: Path, seed: int, cases: range, subsets: Sequence[Steps]) -> None:
    """Run cases one after another, each with some of its steps; write each end down at once."""
    tempfile.tempdir = str(place / "scratch")
    os.environ["WORKBENCH_DATA"] = str(place / "data")
    data = open_data(place / "corpus", tokenizer="bytes")
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + HEADROOM,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for case, only in product(cases, subsets):
        faulthandler.dump_traceback_later(SLOWEST, exit=True)
        print(f"begin {case}", flush=True)
        started = time.perf_counter()
        said = outcome(place, case, seed, only, data)
        spent = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(f"end {json.dumps([case, said, round(spent, 3), peak])}", flush=True)


# --- many ------------------------------------------------------------------------------------


def ends(
    place: Path, seed: int, cases: range, subsets: Sequence[Steps] = (None,)
) -> Generator[Any, None, None]:
    """Run cases in a child; yield case, end, seconds, and the child's peak memory so far [MB]."""
    command = [sys.executable, __file__, "0", "--seed", str(seed), "--child", str(place)]
    command += ["--cases", str(cases.start), str(cases.stop)]
    command += ["--subsets", json.dumps(subsets)]
    with (place / "errors").open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert process.stdout is not None
        begun = None
        try:
            for line in process.stdout:
                word, _, rest = line.partition(" ")
                if word == "begin":
                    begun = int(rest)
                elif word == "end":
                    begun = None
                    yield json.loads(rest)
        except GeneratorExit:
            process.kill()
            raise
        finally:
            process.wait()
    if begun is not None:
        trace = (place / "errors").read_text()
        how = "TIME" if "Timeout (" in trace else "CRASH"
        yield [begun, f"{how} {process.returncode} {trace[-600:]}", SLOWEST, 0]


def reduced(place: Path, seed: int, case: int, said: str) -> dict[str, Any]:
    """Find the fewest steps of a case that end alike."""
    kind = said.partition(" ")[0]
    subsets = [only for size in range(1, 4) for only in combinations(range(3), size)]
    again = ends(place, seed, range(case, case + 1), subsets)
    for only, (_, end, _, _) in zip(subsets, again, strict=False):
        if end.partition(" ")[0] == kind:
            again.close()
            base = random.Random(f"{seed} {case} base")
            chosen = base.choice(sorted((place / "bases").iterdir()))
            folder = place / "told" / chosen.name
            shutil.copytree(chosen, folder)
            steps = damage(folder, seed, case, only)
            shutil.rmtree(place / "told")
            return {"case": case, "base": chosen.name, "steps": steps, "end": end}
    return {"case": case, "steps": "not alike when alone", "end": said}


def main() -> None:
    """Fuzz for some seconds and write one result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--replay", type=int, metavar="CASE")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--cases", type=int, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--subsets", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.child:
        child(options.child, options.seed, range(*options.cases), options.subsets)
        return
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for name in ("bases", "scratch", "data"):
            (place / name).mkdir()
        make_bases(place / "bases")
        if options.replay is not None:
            for end in ends(place, options.seed, range(options.replay, options.replay + 1)):
                print(json.dumps(end))
            return
        result = fuzz(place, options.seed, options.seconds)
    print(json.dumps(result, indent=1))
    print("written:", write_result("fuzz_importers", result))


def fuzz(place: Path, seed: int, seconds: float) -> dict[str, Any]:
    """Run cases until the time is over; reduce the first finding of each kind."""
    count: Counter[str] = Counter()
    kinds: dict[str, tuple[int, str]] = {}
    first, slowest, largest = 0, 0.0, 0
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        done = first
        for case, said, spent, peak in ends(place, seed, range(first, first + CHILD)):
            is_good = said.startswith(("loaded", "refused"))
            count[said if is_good else said.partition(" ")[0]] += 1
            slowest, largest, done = max(slowest, spent), max(largest, peak), case + 1
            if not is_good:
                kinds.setdefault(said.partition(":")[0][:90], (case, said))
            if time.perf_counter() - started > seconds:
                break
        if done == first:
            raise RuntimeError((place / "errors").read_text())
        first = done
    some = list(kinds.values())[:REDUCED]
    found = [reduced(place, seed, case, said) for case, said in some]
    bad = sum(n for said, n in count.items() if not said.startswith(("loaded", "refused")))
    return {
        "seed": seed,
        "seconds": round(time.perf_counter() - started),
        "cases": sum(count.values()),
        "ends": dict(count.most_common()),
        "cases_with_a_finding": bad,
        "findings": found,
        "slowest_case_s": slowest,
        "largest_peak_mb": largest,
        "address_space_beyond_imports_mb": HEADROOM // 2**20,
    }


if __name__ == "__main__":
    main()
