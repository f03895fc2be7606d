"""A fleet: several processes that learn one network (`torchrun`), each from its part of every batch.

All see the same batches in the same order, and each takes every so-manieth row. A task's loss is the mean over the
labelled rows of all processes, whatever each of them has, and gradients are averaged before anything is made of them:
so all take the step that one process would have taken, up to the rounding of sums. A process alone is a fleet of one,
and speaks with nobody.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
import torch.distributed
from torch import Tensor
from torch.nn import Parameter

from contract.errors import BadConfig
from training.data.examples import Integers

CPU: Final = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """`rank` of `size` processes, and where this one computes."""

    rank: int = 0
    size: int = 1
    device: torch.device = CPU

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that says and writes what all have found."""
        return self.rank == 0

    def close(self) -> None:
        """Speak with nobody from here on."""
        if self.size > 1:
            torch.distributed.destroy_process_group()

    def local_rows(self, rows: Integers) -> Integers:
        """This process's rows of a batch."""
        return rows[self.rank :: self.size]

    def global_losses(
        self, losses: Mapping[str, Tensor], rows: Mapping[str, int], tasks: Sequence[str]
    ) -> dict[str, Tensor]:
        """The mean losses of all processes, by tasks that some process has labels of.

        Given are this process's own, over so many labelled `rows`. The values are those of the fleet; the gradients
        are such that their mean over all processes is the fleet's.
        """
        if self.size == 1:
            return dict(losses)
        local = [[float(losses[t].detach()) * rows[t], rows[t]] if t in losses else [0.0, 0.0] for t in tasks]
        sums = torch.tensor(local, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(sums)
        global_values = dict[str, Tensor]()
        for task, (total, count) in zip(tasks, sums.tolist(), strict=True):
            if count:
                value = torch.tensor(total / count, dtype=torch.float32, device=self.device)
                own = losses[task] * (rows[task] * self.size / count) if task in losses else None
                global_values[task] = value if own is None else own + (value - own).detach()
        return global_values

    def average(self, value: Tensor) -> Tensor:
        """The mean over all processes, in place."""
        if self.size > 1:
            torch.distributed.all_reduce(value)
            value /= self.size
        return value

    def average_gradients(self, parameters: Iterable[Parameter]) -> None:
        """Let every process have the mean of all gradients; where none reached a parameter, it stays without one."""
        if self.size == 1:
            return
        trainable = [parameter for parameter in parameters if parameter.requires_grad]
        reached = torch.tensor([float(p.grad is not None) for p in trainable], device=self.device)
        torch.distributed.all_reduce(reached)
        with_gradient = [p for p, count in zip(trainable, reached.tolist(), strict=True) if count]
        if with_gradient:
            flat = self.average(
                torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in with_gradient])
            )
            for p, part in zip(with_gradient, torch.split(flat, [p.numel() for p in with_gradient]), strict=True):
                p.grad = part.reshape(p.shape)


SINGLE_PROCESS = ProcessGroup()


def join_process_group(device: str) -> ProcessGroup:
    """The fleet that `torchrun` has started this process for, or none; raises `BadConfig` for a device that lacks."""
    if device == "cuda" and not torch.cuda.is_available():
        raise BadConfig(["`device` should be there. Found no GPU that torch can use; `cpu` needs none."])
    size, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    compute_device = torch.device("cuda", local) if device == "cuda" else CPU
    if size == 1:
        return ProcessGroup(device=compute_device)
    torch.distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    return ProcessGroup(torch.distributed.get_rank(), size, compute_device)
