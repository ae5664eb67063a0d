"""Processes that share every update: one a GPU, or a few on a processor.

Each learns its rows of every batch, and DistributedDataParallel adds the gradients up, so that an
update is that of one process on the whole batch. All hold the same weights and the same memory of
optimizers; the first alone writes into the folder of the run. They are started by torchrun's own
machinery, from `train` or by hand::

    torchrun --standalone --nproc-per-node 2 -m workbench.training RUN
"""

import json
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from workbench.folder import InputError, RunFolder
from workbench.training.ledger import Watch

PAUSE = 0.2  # s between looks at what the processes have written


class WorkerFailed(RuntimeError):
    """A process of a shared training ended before its time; says which and why."""


def place() -> tuple[int, int]:
    """Return the rank of this process and how many there are: 0 and 1 where it is alone."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def share(part: np.ndarray, rank: int, size: int) -> np.ndarray:
    """Return the rows of a batch that one of `size` processes learns.

    Raises
    ------
    InputError
        If the rows do not divide.
    """
    rows, rest = divmod(len(part), size)
    if rest:
        expected, found = f"a divisor of the {len(part)} rows of a batch", str(size)
        remedy = "Change it, or tokens_per_step."
        raise InputError("processes", expected=expected, found=found, remedy=remedy)
    return part[rank * rows : (rank + 1) * rows]


def agreed(*values: float) -> list[float]:
    """Return the values of the first process; a GPU is not waited for."""
    together = torch.tensor(values, dtype=torch.float64)
    if dist.is_initialized():
        dist.broadcast(together, 0)
    return together.tolist()


def launch(run: RunFolder, processes: int, watchers: Sequence[Watch]) -> None:
    """Train a run, which must have a file to continue from, in processes; wait for their end.

    Watchers are shown what the first process writes. Where this process is interrupted, or they
    raise, the others are asked to stop between two steps.

    Raises
    ------
    WorkerFailed
        If a process is lost or fails; the others are ended then.
    """
    shown = run.metrics.stat().st_size

    def show() -> None:
        nonlocal shown
        with run.metrics.open("rb") as file:
            file.seek(shown)
            whole = file.read().rpartition(b"\n")[0]
        shown += len(whole) + bool(whole)
        for line in whole.splitlines():
            for watch in watchers:
                watch(json.loads(line))

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # errors say it
    with TemporaryDirectory() as logs, ThreadPoolExecutor(1) as pool:
        here: dict[str, Any] = {"min_nodes": 1, "max_nodes": 1, "nproc_per_node": processes}
        here |= {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0"}  # a free port
        here |= {"run_id": run.name, "max_restarts": 0, "logs_specs": DefaultLogsSpecs(logs)}
        command = "-m", "workbench.training", str(run.path), str(os.getpid())
        # Off the main thread, or it would take over this process's signals.
        job: Future[Any] = pool.submit(
            elastic_launch(LaunchConfig(**here), sys.executable), *command
        )
        try:
            while not wait([job], timeout=PAUSE).done:
                show()
            show()
        except BaseException:
            while not wait([job], timeout=PAUSE).done:
                run.request_stop()  # again and again: one made before they began is withdrawn
            raise
    if isinstance(error := job.exception(), ChildFailedError):
        raise WorkerFailed(_reason(error.failures)) from None
    job.result()


def _reason(failures: Mapping[int, ProcessFailure]) -> str:
    """Say which processes ended and why, first those that were killed: others may follow them."""
    own = {rank: each for rank, each in failures.items() if each.exitcode != -signal.SIGTERM}
    ended = sorted((own or failures).items(), key=lambda item: (item[1].exitcode >= 0, item[0]))
    return "; ".join(f"rank {rank}: {_last_words(each)}" for rank, each in ended)


def _last_words(failure: ProcessFailure) -> str:
    """Return the first line of the error of a process, or the signal that ended it."""
    written = failure.error_file_data["message"]
    return str(written["message"] if isinstance(written, dict) else failure.message).splitlines()[0]
