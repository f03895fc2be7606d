"""`python -m training fit`: trains a network on examples and writes it as a checkpoint."""

import math
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from contract.bundle import current_version
from contract.errors import BadConfig
from contract.features.declaration import FeatureSet
from contract.folders import check_writable
from contract.profiles.erasures import Erasures
from contract.settings.model import ModelConfig
from contract.settings.reading import Settings
from contract.settings.training import TrainingConfig
from contract.tasks import Task
from export.interactions import SCHEMA, read_all, read_interactions
from model.base_rate import explain_if_worse, warn_without_gain
from model.checkpoint import (
    Checkpoint,
    CheckpointMetadata,
    checkpoint_path,
    make_metadata,
    read_checkpoint,
    write_checkpoint,
)
from model.config import check_tasks
from model.sequence.next_item import to_tensors
from training.data.examples import Examples, merge_examples
from training.data.interactions import extract_interactions, merge_interactions
from training.data.labels import Classes
from training.data.learned_until import merge_learned
from training.data.parquet import count_rows, find_files, read_examples, read_files
from training.data.streaming import ExampleStream
from training.erasure.arguments import add_erasures_argument, read_erasures
from training.erasure.checkpoints import checkpoint_lock, erase_rows
from training.next_item.fit import NextItemOptions, NextItemResult, fit_next_item
from training.next_item.table_reader import InteractionTable, read_interaction_tables
from training.next_item.together import find_together
from training.online.replay_buffer import encode_buffer
from training.report.console import print_evaluation, print_json, print_lines
from training.report.progress import ProgressReporter
from training.teaching.taught_fit import fit_taught
from training.trainer.config import override_config
from training.trainer.distributed import join_process_group
from training.trainer.fit import FitOptions, FitResult
from training.trainer.size_defaults import adapt_configs, describe_defaults
from training.trainer.transfer import RATE_SHARES, Transfer


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("data", type=Path, nargs="+", help="examples as Parquet; several files form one set")
    parser.add_argument(
        "--interactions",
        type=Path,
        action="append",
        default=[],
        help="user_id, item_id, ts_ms, action, as Parquet or CSV: for neighbours and the next-item part",
    )
    parser.add_argument("--epochs", type=int, help="passes over the data, instead of the setting")
    parser.add_argument("--seed", type=int, help="the seed, instead of the setting")
    parser.add_argument("--bundles", type=Path, help="the folder of bundles, instead of the setting")
    parser.add_argument("--resume", type=Path, help="a file to save each epoch to, and to resume from after an abort")
    parser.add_argument("--log", type=Path, help="a file to append a JSON object to for each epoch")
    parser.add_argument(
        "--from", dest="former", metavar="VERSION", help="start from this trained network; tasks may be new"
    )
    parser.add_argument(
        "--carried",
        choices=tuple(RATE_SHARES),
        default="slow",
        help="how layers from there are trained (slow: at a tenth of the learning rate)",
    )
    add_erasures_argument(parser)


def run(args: Namespace, settings: Settings, features: FeatureSet) -> int:
    """Train a network on Parquet files of examples and write it as a checkpoint."""
    started_s, bundles = time.monotonic(), args.bundles or settings.bundles
    model_config, config = read_configs(settings, features, {"epochs": args.epochs, "seed": args.seed})
    check_before_work(args, bundles)
    torch.set_num_threads(config.threads)
    process_group = join_process_group(config.device)
    erasures = process_group.broadcast(lambda: read_erasures(args, settings))
    initial = read_initial(bundles, args.former, erasures)
    transfer = Transfer(checkpoint=initial, carried=args.carried) if initial else None
    classes = initial.metadata.statistics.classes if initial else None
    examples = read_data(args.data, features, settings.tasks, classes, config, erasures)
    declared = model_config, config
    model_config, config = adapt_configs(*declared, len(examples), initial.metadata.shape if initial else None)
    options = FitOptions(args.resume, transfer, process_group)
    fitted = fit_with_progress(examples, model_config, config, options, args.log)
    process_group.close()
    if not process_group.is_main:
        return 0  # the main process writes and prints the result
    print_lines(*describe_defaults(*declared, len(examples)), *fitted.left_out.values())
    parent = initial.metadata.version if initial else current_version(bundles)
    interactions = read_interaction_tables(args.interactions, erasures, settings.intake)
    next_item = learn_next_item(interactions, config) if args.interactions and config.next_item_epochs else None
    checkpoint = build_checkpoint(fitted, examples, config, initial, parent, interactions.table)
    checkpoint = replace(checkpoint, together=find_together(interactions.to_history()))
    if next_item and next_item.part:
        checkpoint = replace(checkpoint, next_item=to_tensors(next_item.part))
    with checkpoint_lock(bundles):  # so that no erasure of the meantime is missed
        path = write_checkpoint(bundles, erase_rows(checkpoint, read_erasures(args, settings)))
    if args.resume:
        args.resume.unlink(missing_ok=True)  # the checkpoint replaces it; the next run starts from the beginning
    version = checkpoint.metadata.version
    print_evaluation(settings.tasks, fitted.evaluation, f"{version} on held-out examples")
    worse = explain_if_worse(fitted.evaluation)
    print_lines(*worse, *warn_without_gain(fitted.evaluation))
    if worse:
        print_lines("`python -m export` refuses this checkpoint without `--anyway`.")
    print_json(
        version=version,
        checkpoint=str(path),
        score=None if math.isnan(fitted.score) else fitted.score,
        evaluation=fitted.evaluation,
        left_out=fitted.left_out,
        interactions={"used": len(interactions.table), "left_out": interactions.left_out},
        next_item=describe_next_item(next_item),
        together={"items": len(checkpoint.together["rows"]) if checkpoint.together else 0},
        examples=len(examples),
        seconds=round(time.monotonic() - started_s, 2),
    )
    return 0


def check_before_work(args: Namespace, bundles: Path) -> None:
    """Raise `BadConfig` or `BadData` for folders and files that would end the command after hours of training."""
    check_writable(bundles / "checkpoints", "bundles")
    for option, path in (("--resume", args.resume), ("--log", args.log)):
        if path is not None:
            check_writable(path.parent, option)
    for path in find_files(args.data):
        count_rows(path)


def fit_with_progress(
    examples: Examples | ExampleStream,
    model_config: ModelConfig,
    config: TrainingConfig,
    options: FitOptions,
    log: Path | None,
) -> FitResult:
    """Fit, with progress reported by the main process."""
    if not options.process_group.is_main:
        return fit_taught(examples, model_config, config, lambda epoch: None, options)
    with ProgressReporter(log=log) as reporter:
        return fit_taught(
            examples,
            model_config,
            config,
            reporter.on_epoch,
            replace(options, progress=reporter.on_step),
            on_taught=tell_taught,
        )


def tell_taught(tasks: Sequence[Task]) -> None:
    """Say why a second fit begins."""
    names = ", ".join(f"`{task.name}`" for task in tasks)
    print_lines(
        f"On held-out examples trees are ahead on {names}: the network is fitted again with their probabilities as "
        "labels, and the better one is kept (`training.teacher`)."
    )


def read_initial(bundles: Path, version: str | None, erasures: Erasures) -> Checkpoint | None:
    """The checkpoint to start from, without the rows of erased people."""
    return erase_rows(read_checkpoint(checkpoint_path(bundles, version)), erasures) if version else None


def read_data(
    paths: Sequence[Path],
    features: FeatureSet,
    tasks: Sequence[Task],
    classes: Classes | None,
    config: TrainingConfig,
    erasures: Erasures,
) -> Examples | ExampleStream:
    """The examples of files or folders of files: in memory, or as a stream for more than `stream_rows` rows."""
    files = find_files(paths)
    if sum(count_rows(path) for path in files) > config.stream_rows:
        return ExampleStream(paths=files, features=features, tasks=tasks, classes=classes, erasures=erasures)
    return read_files(files, features, tasks, classes, erasures)


def build_checkpoint(
    fitted: FitResult,
    examples: Examples | ExampleStream,
    config: TrainingConfig,
    initial: Checkpoint | None,
    parent: str | None,
    more_interactions: Any,
) -> Checkpoint:
    """The checkpoint of a fitted network, with its replay buffer and interactions."""
    metadata = make_metadata(
        fitted.network,
        parent=parent,
        created_ms=time.time_ns() // 1_000_000,
        evaluation=fitted.evaluation,
        positions={},
        learned=merge_learned(initial.metadata.learned if initial else {}, fitted.learned),
        profile_share=fitted.profile_share,
    )
    sample, interactions = build_replay_data(examples, fitted.network.tasks, config)
    former = [initial.interactions] if initial else []
    return Checkpoint(
        metadata=metadata,
        weights=fitted.network.state_dict(),
        optimizer=fitted.optimizer,
        replay_buffer=merge_sample(initial, sample, metadata, config),
        interactions=merge_interactions(read_all([interactions, *former]), more_interactions.select(SCHEMA.names)),
    )


def learn_next_item(interactions: InteractionTable, config: TrainingConfig) -> NextItemResult:
    """Learn the next-item part, and print what it is worth."""
    options = NextItemOptions(
        epochs=config.next_item_epochs, seed=config.seed, new_items_only=config.new_items_only, report=print_lines
    )
    result = fit_next_item(interactions.to_history(), options)
    print_lines(*(f"{count} interactions are left out: {reason}." for reason, count in interactions.left_out.items()))
    if result.reason:
        without = (
            "The lists have the order of the neighbours" if result.part else "The checkpoint has no next-item part"
        )
        print_lines(f"{result.reason} {without}.")
    return result


def describe_next_item(result: NextItemResult | None) -> dict[str, Any] | None:
    """What the last line of the command says of the part; None if it was not learned."""
    if result is None:
        return None
    return {"is_learned": bool(result.part), "evaluation": result.evaluation, "cpu_s": result.cpu_s}


def build_replay_data(
    examples: Examples | ExampleStream, tasks: Sequence[Task], config: TrainingConfig
) -> tuple[bytes, bytes]:
    """A sample of the examples for the replay buffer, and their interactions; both as Parquet."""
    if isinstance(examples, Examples):
        trainable = examples.for_tasks(tasks)
        return encode_buffer(trainable, config.keep, config.seed), merge_interactions(extract_interactions(trainable))
    all_rows, interactions = np.ones(len(examples), np.bool_), merge_interactions(read_all([]))
    for chunk in examples.iterate_chunks(all_rows):
        interactions = merge_interactions(read_interactions(interactions), extract_interactions(chunk.for_tasks(tasks)))
    sample = examples.sample(all_rows, config.keep).for_tasks(tasks)
    return encode_buffer(sample, config.keep, config.seed), interactions


def merge_sample(
    initial: Checkpoint | None, sample: bytes, metadata: CheckpointMetadata, config: TrainingConfig
) -> bytes:
    """The replay buffer: the sample of the new tasks, merged with the buffer of the checkpoint to start from."""
    if initial is None or not initial.replay_buffer:
        return sample
    samples = [read_examples(content, *metadata.schema()) for content in (initial.replay_buffer, sample)]
    return encode_buffer(merge_examples(samples), config.keep, config.seed)


def read_configs(
    settings: Settings, features: FeatureSet, overrides: Mapping[str, int | None]
) -> tuple[ModelConfig, TrainingConfig]:
    """The declared network and training, with the overrides that are not None; `BadConfig` lists all errors."""
    errors = list[str]()
    config = settings.training
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        config = override_config(settings.training, given)
    except BadConfig as error:
        errors += error.errors
    try:
        check_tasks(settings.tasks, features)
    except BadConfig as error:
        errors += error.errors
    if errors:
        raise BadConfig(errors)
    return settings.model, config
