"""A process of a launch whose model is sharded as FSDP2 does; accelerate does so on GPUs only."""

import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from rpo_pipeline.training.job import TrainingJob


class Prepared:
    """An optimizer as accelerate hands it back."""

    def __init__(self, optimizer):
        self.optimizer = optimizer


def shard(self, scorer, optimizer):
    mesh = init_device_mesh("cpu", (self.num_processes,))
    layers = [m for m in scorer.modules() if type(m).__name__ in scorer._no_split_modules]
    for module in [*layers, scorer]:
        fully_shard(module, mesh=mesh)
    (group,) = optimizer.param_groups
    settings = {"lr": group["lr"], "weight_decay": group["weight_decay"]}
    return scorer, Prepared(torch.optim.AdamW(scorer.parameters(), **settings))


if __name__ == "__main__":
    Accelerator.prepare = shard
    TrainingJob.read(Path(sys.argv[1])).run()
