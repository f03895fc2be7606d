"""Data-parallel training: several processes (`torchrun`) train one network, each on its part of every batch.

All processes see the same batches in the same order; rank r of N takes rows r, r + N, r + 2N, and so on. A task's loss
is the mean over the labelled rows of all processes, and gradients are averaged before they are used, so all take the
step that one process would take, up to rounding. A single process skips all collectives.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar, cast

import torch
import torch.distributed
from torch import Tensor
from torch.nn import Parameter

from contract.arrays import Integers
from contract.errors import BadConfig

T = TypeVar("T")
CPU: Final = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """Rank `rank` of `size` processes, and the device of this one."""

    rank: int = 0
    size: int = 1
    device: torch.device = CPU

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that prints and writes the result."""
        return self.rank == 0

    def close(self) -> None:
        if self.size > 1:
            torch.distributed.destroy_process_group()

    def broadcast(self, read: Callable[[], T]) -> T:
        """What `read` returns in the main process, in all processes; it is called there alone."""
        if self.size == 1:
            return read()
        values = [read() if self.is_main else None]
        torch.distributed.broadcast_object_list(values, device=self.device)
        return cast(T, values[0])

    def local_rows(self, rows: Integers) -> Integers:
        """This process's rows of a batch."""
        return rows[self.rank :: self.size]

    def global_losses(
        self, losses: Mapping[str, Tensor], rows: Mapping[str, int], tasks: Sequence[str]
    ) -> dict[str, Tensor]:
        """The mean losses over all processes, for the tasks that some process has labels of.

        `losses`: this process's mean losses, over `rows` labelled rows each. The returned values are global; the mean
        of their gradients over all processes is the global gradient.
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
        """Replace gradients by their mean over all processes; a parameter without a gradient in any stays without."""
        if self.size == 1:
            return
        trainable = [parameter for parameter in parameters if parameter.requires_grad]
        has_gradient = torch.tensor([float(p.grad is not None) for p in trainable], device=self.device)
        torch.distributed.all_reduce(has_gradient)
        with_gradient = [p for p, count in zip(trainable, has_gradient.tolist(), strict=True) if count]
        if with_gradient:
            flat = self.average(
                torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in with_gradient])
            )
            for p, part in zip(with_gradient, torch.split(flat, [p.numel() for p in with_gradient]), strict=True):
                p.grad = part.reshape(p.shape)


SINGLE_PROCESS = ProcessGroup()


def join_process_group(device: str) -> ProcessGroup:
    """The process group that `torchrun` started, or a single process; raises `BadConfig` without the device."""
    if device == "cuda" and not torch.cuda.is_available():
        raise BadConfig(["`device` should be available. Found no GPU that torch can use; `cpu` needs none."])
    size, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    compute_device = torch.device("cuda", local) if device == "cuda" else CPU
    if size == 1:
        return ProcessGroup(device=compute_device)
    torch.distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    return ProcessGroup(torch.distributed.get_rank(), size, compute_device)
