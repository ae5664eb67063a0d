"""Damage artifacts for some time: each must be refused in words, or open as a whole model.

::

    .venv/bin/python bench/fuzz_artifact.py SECONDS [--seed N]

The checksum is written anew in most cases, as somebody hostile would. Cases run in a child process
with an address space of 1 GiB beyond its imports; memory or time beyond limits is a finding too.
"""

import argparse
import hashlib
import json
import multiprocessing
import random
import resource
import struct
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from record import write_result

from workbench.folder import InputError
from workbench.model import new_network, preset
from workbench.quantization import open_artifact, pack, quantizer
from workbench.quantization.methods import absmax

HEADROOM = 2**30  # bytes of address space beyond what is imported
SECONDS = 8.0  # that one case may take
CHILD = 400  # cases of one child
NUMBERS = (-1, 0, 1, 3, 2**31 - 1, 2**31, 2**40, 1e308, "1", None, True, [], {}, "x" * 9)


def originals() -> list[bytes]:
    """Make small artifacts of every kind of tensor."""
    network = new_network(preset("demo", n_layer=2, d_model=16, vocab_size=60), seed=0)
    with torch.no_grad():
        for each in network.parameters():
            each.normal_(0, 0.3)
    ids = torch.randint(0, 60, (20, 16))
    made = quantizer(network, ids, torch.ones_like(ids, dtype=torch.bool))
    found = [made.codes(0.02), made.codes(0.0005), absmax(made, 4)[0], network.state_dict()]
    return [pack(network.config, each)[0] for each in found]


def damaged(content: bytes, draw: random.Random) -> bytes:
    """Change an artifact in one to three places, and mostly seal it again."""
    for _ in range(draw.randint(1, 3)):
        kind = draw.randrange(5)
        raw = bytearray(content)
        if kind == 0 and raw:
            for _ in range(draw.randint(1, 8)):
                raw[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
        elif kind == 1:
            at, to = sorted(draw.randint(0, len(raw)) for _ in range(2))
            raw[at:to] = draw.choice([b"", bytes(to - at), b"\xff" * (to - at), raw[at:to] * 2])
        elif kind == 2 and len(raw) > 12:
            at = draw.choice([4, 8 + min(struct.unpack_from("<I", raw, 4)[0], len(raw) - 12)])
            raw[at : at + 4] = struct.pack("<I", draw.choice([0, 1, 2**16, 2**31, 2**32 - 1]))
        else:
            raw = bytearray(_bent(bytes(raw), draw))
        content = bytes(raw)
    if draw.random() < 0.9:
        content = content[:-16] + hashlib.sha256(content[:-16]).digest()[:16]
    return content


def _bent(content: bytes, draw: random.Random) -> bytes:
    """Put another value somewhere into the header."""
    try:
        (length,) = struct.unpack_from("<I", content, 4)
        header = json.loads(content[8 : 8 + length])
        where = draw.choice([header, header["model"], header["groups"]])
        key = draw.choice([*where, "n_layer", "d_model", "vocab_size", "tok_emb.weight"])
        where[key] = draw.choice(NUMBERS)
        text = json.dumps(header).encode()
    except (ValueError, KeyError, TypeError, struct.error):
        return content
    return content[:4] + struct.pack("<I", len(text)) + text + content[8 + length :]


def child(seed: int, first: int, folder: str, bases: list[bytes], pipe: Any) -> None:
    """Run some cases and send how each ended."""
    torch.set_num_threads(1)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + HEADROOM, now + HEADROOM))
    path = Path(folder) / f"{first}.wba"
    for case in range(first, first + CHILD):
        draw = random.Random(f"{seed} {case}")
        path.write_bytes(damaged(draw.choice(bases), draw))
        pipe.send(("begun", case))
        started = time.perf_counter()
        try:
            model, _ = open_artifact(path)
            finite = all(bool(each.isfinite().all()) for each in model.state_dict().values())
            end = "opened" if finite else "opened, not finite"
        except InputError as error:
            memory = "memory" in str(error).lower()
            end = "refused" if str(path) in str(error) and not memory else f"odd: {error}"
        except BaseException as error:  # noqa: BLE001 a finding, whatever it is
            end = f"{type(error).__name__}: {error}"
        pipe.send((end, time.perf_counter() - started))
    pipe.close()


def fuzz(seed: int, seconds: float) -> dict[str, Any]:
    """Run children until the time is over."""
    count: Counter[str] = Counter()
    findings: dict[str, Any] = {}
    slowest, case, bases = 0.0, 0, originals()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        while time.perf_counter() - started < seconds:
            ours, theirs = multiprocessing.Pipe(duplex=False)
            work = multiprocessing.Process(target=child, args=(seed, case, folder, bases, theirs))
            work.start()
            theirs.close()
            last = case
            case += CHILD
            try:
                while True:
                    end, value = ours.recv() if ours.poll(SECONDS) else ("too slow", last)
                    if end == "begun":
                        last = value
                        continue
                    if end == "too slow":
                        work.kill()
                    else:
                        slowest = max(slowest, value)
                    is_good = end in ("opened", "refused")
                    count[end if is_good else end.partition(":")[0]] += 1
                    if not is_good:
                        findings.setdefault(end[:90], last)
            except EOFError:
                work.join()
            if work.exitcode not in (0, -9):
                findings.setdefault(f"exit status {work.exitcode}", last)
    return {
        "seed": seed,
        "seconds": round(time.perf_counter() - started),
        "cases": sum(count.values()),
        "ends": dict(count),
        "findings": findings,
        "slowest_case_s": slowest,
        "address_space_beyond_imports_mb": HEADROOM // 2**20,
    }


def main() -> None:
    """Fuzz and write one result file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("seconds", type=float)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    result = fuzz(options.seed, options.seconds)
    print(json.dumps(result, indent=1))
    print("written:", write_result("fuzz_artifact", result))


if __name__ == "__main__":
    main()
