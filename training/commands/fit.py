"""`python -m training fit`: from its arguments to its last line of JSON."""

import math
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from contract.bundle import current_version
from contract.errors import BadConfig
from contract.features.declaration import FeatureSet
from contract.settings import Settings
from contract.tasks import Task
from export.interactions import read_all, read_interactions
from model.checkpoint import (
    Checkpoint,
    CheckpointMetadata,
    checkpoint_path,
    make_metadata,
    read_checkpoint,
    write_checkpoint,
)
from model.config import ModelConfig, check_tasks, read_model_config
from training.data.examples import Examples, merge_examples
from training.data.interactions import extract_interactions, merge_interactions
from training.data.labels import Classes
from training.data.parquet import count_rows, find_files, read_examples, read_files
from training.data.streaming import ExampleStream
from training.online.replay_buffer import encode_buffer
from training.report.console import print_evaluation, print_json, print_lines
from training.report.progress import ProgressReporter
from training.trainer.config import TrainingConfig, read_training_config
from training.trainer.distributed import join_process_group
from training.trainer.fit import FitOptions, FitResult, fit
from training.trainer.transfer import Transfer


def run(args: Namespace, settings: Settings, features: FeatureSet) -> int:
    """Fit a network to a Parquet file of examples and keep it as a checkpoint."""
    started_s, bundles = time.monotonic(), args.bundles or settings.bundles
    overrides = {"epochs": args.epochs, "seed": args.seed}
    shape, plan = read_configs(
        settings, features, {name: value for name, value in overrides.items() if value is not None}
    )
    torch.set_num_threads(plan.threads)
    process_group = join_process_group(plan.device)
    initial = read_checkpoint(checkpoint_path(bundles, args.former)) if args.former else None
    transfer = Transfer(checkpoint=initial, carried=args.carried) if initial else None
    known_classes = initial.metadata.statistics.classes if initial else None
    examples = read_data(args.data, features, settings.tasks, known_classes, plan)
    fitted = fit_with_progress(examples, shape, plan, FitOptions(args.resume, transfer, process_group), args.log)
    process_group.close()
    if not process_group.is_main:
        return 0  # the process that leads tells what all have found
    print_lines(*fitted.left_out.values())
    about = make_metadata(
        fitted.network,
        parent=initial.metadata.version if initial else current_version(bundles),
        created_ms=time.time_ns() // 1_000_000,
        evaluation=fitted.evaluation,
        positions={},
    )
    sample, interactions = build_replay_data(examples, fitted.network.tasks, plan)
    interaction_tables = [interactions, *args.interactions, *([initial.interactions] if initial else [])]
    checkpoint = Checkpoint(
        metadata=about,
        weights=fitted.network.state_dict(),
        optimizer=fitted.optimizer,
        replay_buffer=merge_sample(initial, sample, about, plan),
        interactions=merge_interactions(read_all(interaction_tables)),
    )
    path = write_checkpoint(bundles, checkpoint)
    if args.resume:
        args.resume.unlink(missing_ok=True)  # its end is kept now; the next course begins anew
    print_evaluation(settings.tasks, fitted.evaluation, f"{about.version} on held-out examples")
    print_json(
        version=about.version,
        checkpoint=str(path),
        score=None if math.isnan(fitted.score) else fitted.score,
        evaluation=fitted.evaluation,
        left_out=fitted.left_out,
        examples=len(examples),
        seconds=round(time.monotonic() - started_s, 2),
    )
    return 0


def fit_with_progress(
    examples: Examples | ExampleStream, shape: ModelConfig, plan: TrainingConfig, options: FitOptions, log: Path | None
) -> FitResult:
    """Fit, and tell of it where this process leads."""
    if not options.process_group.is_main:
        return fit(examples, shape, plan, lambda epoch: None, options)
    with ProgressReporter(log=log) as reporter:
        return fit(examples, shape, plan, reporter.on_epoch, replace(options, progress=reporter.on_step))


def read_data(
    paths: Sequence[Path], features: FeatureSet, tasks: Sequence[Task], classes: Classes | None, plan: TrainingConfig
) -> Examples | ExampleStream:
    """The examples of some files or folders of files: in memory, or as a stream where they are too many."""
    files = find_files(paths)
    if sum(count_rows(path) for path in files) > plan.stream_rows:
        return ExampleStream(paths=files, features=features, tasks=tasks, classes=classes)
    return read_files(files, features, tasks, classes)


def build_replay_data(
    examples: Examples | ExampleStream, tasks: Sequence[Task], plan: TrainingConfig
) -> tuple[bytes, bytes]:
    """What a checkpoint carries of what it has learned from: a sample, and who took what; both as Parquet."""
    if isinstance(examples, Examples):
        trainable = examples.for_tasks(tasks)
        return encode_buffer(trainable, plan.keep, plan.seed), merge_interactions(extract_interactions(trainable))
    all_rows, interactions = np.ones(len(examples), np.bool_), merge_interactions(read_all([]))
    for chunk in examples.iterate_chunks(all_rows):
        interactions = merge_interactions(read_interactions(interactions), extract_interactions(chunk.for_tasks(tasks)))
    return encode_buffer(examples.sample(all_rows, plan.keep).for_tasks(tasks), plan.keep, plan.seed), interactions


def merge_sample(initial: Checkpoint | None, sample: bytes, about: CheckpointMetadata, plan: TrainingConfig) -> bytes:
    """The examples that the checkpoint carries: those of the new tasks, and where there was a former one, its own."""
    if initial is None or not initial.replay_buffer:
        return sample
    samples = [read_examples(content, *about.schema()) for content in (initial.replay_buffer, sample)]
    return encode_buffer(merge_examples(samples), plan.keep, plan.seed)


def read_configs(
    settings: Settings, features: FeatureSet, overrides: dict[str, int]
) -> tuple[ModelConfig, TrainingConfig]:
    """The network and the plan that the settings declare, with what was `given`; `BadConfig` lists all mistakes."""
    errors = list[str]()
    shape, plan = ModelConfig(), TrainingConfig()
    try:
        shape = read_model_config(settings.model)
    except BadConfig as error:
        errors += error.errors
    try:
        plan = read_training_config({**settings.training, **overrides})
    except BadConfig as error:
        errors += error.errors
    try:
        check_tasks(settings.tasks, features)
    except BadConfig as error:
        errors += error.errors
    if errors:
        raise BadConfig(errors)
    return shape, plan
