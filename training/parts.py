"""Parts: what a network learns from, what calibrates and judges it, and which tasks can be learned at all."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch

from contract.errors import BadData
from model.declared import check_tasks
from training.examples import Examples
from training.plan import Plan
from training.split import learnable, split_by_time, teachable
from training.stream import JUDGING, MEASURED, Stream
from training.transfer import Transfer

Portions = Callable[[np.random.Generator], Iterable[Examples]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """`measured`: what statistics are taken from; `held_out`: what neither they nor an epoch see.

    `portions`: what an epoch learns from, `rows` in all, in the order that is drawn for it. `left_out`: why some tasks
    are in none of them.
    """

    measured: Examples
    held_out: Examples
    portions: Portions
    rows: int
    left_out: dict[str, str]


def parted(examples: Examples | Stream, plan: Plan, transfer: Transfer | None = None) -> Parts:
    """Ready to learn: cut by time, with the plan's seed set. Raises `BadData` where nothing can be learned."""
    check_tasks(examples.tasks, examples.features)
    torch.manual_seed(plan.seed)
    return streamed(examples, plan, transfer) if isinstance(examples, Stream) else whole(examples, plan, transfer)


def whole(examples: Examples, plan: Plan, transfer: Transfer | None) -> Parts:
    """The parts of examples in memory."""
    split = split_by_time(examples, plan.held_out)
    training = examples.take(split.training)
    tasks, left_out = learnable(training)
    check_some(tasks, left_out)
    if transfer:
        tasks = transfer.tasks(tasks, examples.tasks)
    training = training.for_tasks(tasks)
    taught = transfer.taught(training) if transfer else training
    return Parts(
        measured=training,
        held_out=examples.take(split.validation).for_tasks(tasks),
        portions=lambda order: [taught],
        rows=len(taught),
        left_out=left_out,
    )


def streamed(stream: Stream, plan: Plan, transfer: Transfer | None) -> Parts:
    """The parts of a stream: samples of what is measured and held out, and all of the training part in portions."""
    held = stream.held_out(plan.held_out)
    tasks, left_out = teachable(stream.tasks, stream.labels)
    check_some(tasks, left_out)
    if transfer:
        tasks = transfer.tasks(tasks, stream.tasks)

    def portions(order: np.random.Generator) -> Iterable[Examples]:
        for portion in stream.portions(~held, order):
            yield transfer.taught(portion.for_tasks(tasks)) if transfer else portion.for_tasks(tasks)

    return Parts(
        measured=stream.sample(~held, MEASURED).for_tasks(tasks),
        held_out=stream.sample(held, JUDGING).for_tasks(tasks),
        portions=portions,
        rows=int((~held).sum()),
        left_out=left_out,
    )


def check_some(tasks: Iterable[object], left_out: dict[str, str]) -> None:
    if not list(tasks):
        raise BadData(f"Some task should be learnable. Found: {' '.join(left_out.values())}")


def halves(held_out: Examples) -> tuple[Examples, Examples]:
    """What calibrates and, later in each family, what judges."""
    split = split_by_time(held_out, 0.5)
    return held_out.take(split.training), held_out.take(split.validation)
