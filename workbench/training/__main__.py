"""One of the processes that train a run together; see `workbench.training.distributed`."""

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import record

from workbench.folder import InputError, RunFolder, find_run
from workbench.model import Network, from_json
from workbench.text import reopen_data
from workbench.training.config import recorded_config
from workbench.training.distributed import place
from workbench.training.loop import train
from workbench.training.resume import newest_standing


class Attended(RunFolder):
    """A run that is also asked to stop by the end of the process that launched it."""

    def asked_to_stop(self) -> bool:
        """Tell whether somebody has asked, or nobody is left to."""
        return super().asked_to_stop() or os.getppid() != LAUNCHER


@record
def main(path: str) -> None:
    """Train a run from where it stands."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
    run = Attended(find_run(path).path)
    told, newest = run.record(), newest_standing(run)
    on_gpu = told["training"]["device"].startswith("cuda")
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo")
    rank, size = place()
    config = recorded_config(told["training"], {"processes": size})
    data = reopen_data(told["data"], run.path / "tokenizer")
    if data.identity() != told["data"] or newest is None:
        wanted = "data that its record can find again, and a file to continue from"
        remedy = "Train it in one process."
        raise InputError(run.path, expected=wanted, found="other data, or none", remedy=remedy)
    with TemporaryDirectory() as scratch:
        if rank:  # what it writes is thrown away
            run = Attended(Path(scratch))
            for each in (newest, newest.parent / run.metrics.name):
                shutil.copy(each, scratch)
            few: dict[str, Any] = {"checkpoints": 0, "validate_every": 0, "validation_tokens": 1}
            config = replace(config, resume_seconds=1e9, **few)
        train(Network(from_json(told["model"])), data, config, run)
    dist.destroy_process_group()


if __name__ == "__main__":
    LAUNCHER = int(sys.argv[2]) if len(sys.argv) > 2 else os.getppid()
    main(sys.argv[1])
