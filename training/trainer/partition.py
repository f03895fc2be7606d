"""Partitions examples into training, calibration and validation parts, and selects the tasks that can be learned."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch

from contract.errors import BadData
from contract.settings.training import TrainingConfig
from model.config import check_tasks
from training.data.examples import Examples
from training.data.split import filter_learnable, find_learnable, split_by_time
from training.data.streaming import HELD_OUT_ROWS, STATISTICS_ROWS, ExampleStream
from training.trainer.transfer import Transfer

ChunkSource = Callable[[np.random.Generator], Iterable[Examples]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """`statistics_sample`: measured for feature statistics; `held_out`: seen by neither statistics nor training.

    `chunks`: an epoch's training examples, `rows` in all, in a drawn order. `left_out`: why tasks are excluded.
    """

    statistics_sample: Examples
    held_out: Examples
    chunks: ChunkSource
    rows: int
    left_out: dict[str, str]


def prepare_data(
    examples: Examples | ExampleStream, config: TrainingConfig, transfer: Transfer | None = None
) -> TrainingData:
    """Partition by time and set torch's seed; raises `BadData` where no task can be learned."""
    check_tasks(examples.tasks, examples.features)
    torch.manual_seed(config.seed)
    if isinstance(examples, ExampleStream):
        return partition_stream(examples, config, transfer)
    return partition_examples(examples, config, transfer)


def partition_examples(examples: Examples, config: TrainingConfig, transfer: Transfer | None) -> TrainingData:
    """The parts of examples in memory."""
    split = split_by_time(examples, config.held_out)
    training = examples.take(split.training)
    tasks, left_out = find_learnable(training)
    check_learnable(tasks, left_out)
    if transfer:
        tasks = transfer.select_tasks(tasks, examples.tasks)
    training = training.for_tasks(tasks)
    trainable = transfer.drop_frozen_labels(training) if transfer else training
    return TrainingData(
        statistics_sample=training,
        held_out=examples.take(split.validation).for_tasks(tasks),
        chunks=lambda rng: [trainable],
        rows=len(trainable),
        left_out=left_out,
    )


def partition_stream(stream: ExampleStream, config: TrainingConfig, transfer: Transfer | None) -> TrainingData:
    """The parts of a stream: samples for statistics and of the held-out part, and the whole training part in chunks."""
    is_held_out = stream.select_held_out(config.held_out)
    tasks, left_out = filter_learnable(stream.tasks, stream.distinct_labels)
    check_learnable(tasks, left_out)
    if transfer:
        tasks = transfer.select_tasks(tasks, stream.tasks)

    def chunks(rng: np.random.Generator) -> Iterable[Examples]:
        for chunk in stream.iterate_chunks(~is_held_out, rng):
            yield transfer.drop_frozen_labels(chunk.for_tasks(tasks)) if transfer else chunk.for_tasks(tasks)

    return TrainingData(
        statistics_sample=stream.sample(~is_held_out, STATISTICS_ROWS).for_tasks(tasks),
        held_out=stream.sample(is_held_out, HELD_OUT_ROWS).for_tasks(tasks),
        chunks=chunks,
        rows=int((~is_held_out).sum()),
        left_out=left_out,
    )


def check_learnable(tasks: Iterable[object], left_out: dict[str, str]) -> None:
    if not list(tasks):
        raise BadData(f"Some task should be learnable. Found: {' '.join(left_out.values())}")


def split_held_out(held_out: Examples) -> tuple[Examples, Examples]:
    """The calibration part and, later in each family, the validation part."""
    split = split_by_time(held_out, 0.5)
    return held_out.take(split.training), held_out.take(split.validation)
