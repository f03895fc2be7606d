"""`python -m training follow`: incremental updates from the feedback topic, published as bundles."""

import logging
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import torch

from contract.bundle import replace_durably
from contract.bundle_mirror import open_store, push, synchronize
from contract.errors import BadBundle, BadData, Unavailable
from contract.features.declaration import FeatureSet
from contract.folders import check_writable
from contract.settings.reading import Settings
from contract.settings.training import TrainingConfig
from export.releases import require_current
from model.checkpoint import Checkpoint
from training.erasure.checkpoints import CheckpointEraser
from training.erasure.execution import ErasureExecution
from training.feedback.feedback_reader import FeedbackBatch, FeedbackReader
from training.online.lock import learner_lock
from training.online.publication import clean_up, publish
from training.online.rejected_updates import STATE_FILE, RejectedUpdate, RejectedUpdateStore
from training.online.update import UpdateResult, describe_update, read_serving_checkpoint, update
from training.report.console import print_evaluation, print_json, print_lines
from training.trainer.config import check_balance

log = logging.getLogger(__name__)

EXIT_REJECTED: Final = 3
EXIT_FROZEN: Final = 4
ERASED: Final = "of erased people"
NO_EXAMPLES: Final = "There should be examples to learn from. Found none that can be used."


class UpdateStatus(NamedTuple):
    """The exit code of an update, and whether the topic had more records than it read."""

    exit_code: int
    has_more: bool


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--once", action="store_true", help="learn from what the topic has now, then exit")
    parser.add_argument("--thaw", action="store_true", help="unfreeze a model that rejected updates have frozen")
    parser.add_argument("--bundles", type=Path, help="the folder of bundles, instead of the setting")


def run(args: Namespace, settings: Settings, features: FeatureSet) -> int:
    """Update once, or until `args.stop` is set; exit code 3 for a rejected update, 4 for a frozen model."""
    bundles: Path = args.bundles or settings.bundles
    config = settings.training
    check_balance(config)
    if args.thaw:
        return thaw(bundles)
    check_writable(bundles, "bundles")
    torch.set_num_threads(config.threads)
    with learner_lock(bundles):
        if removed := clean_up(bundles):
            log.info("%s was not completely published: its files are deleted, and it is learned again.", removed)
        erasures = ErasureExecution(settings=settings, process="learner", erase=CheckpointEraser(bundles=bundles).erase)
        reader = FeedbackReader(kafka=settings.kafka, topic=settings.topics.feedback, erasures=erasures.erasures)
        try:
            if args.once:
                erasures.apply()
                return learn_once(reader, bundles, settings, config)
            while not args.stop.is_set():
                if not learn_with_retry(reader, bundles, settings, config, erasures.apply):
                    args.stop.wait(config.pause_s)
            return 0
        finally:
            reader.close()
            erasures.close()


def learn_once(reader: FeedbackReader, bundles: Path, settings: Settings, config: TrainingConfig) -> int:
    """One update; returns the exit code."""
    return run_update(reader, bundles, settings, config).exit_code


def learn_with_retry(
    reader: FeedbackReader,
    bundles: Path,
    settings: Settings,
    config: TrainingConfig,
    prepare: Callable[[], None] = lambda: None,
) -> bool:
    """One update, without failing where Kafka or a first bundle is missing; returns whether there is more to read.

    `prepare` is called before; without its success nothing is learned.
    """
    try:
        prepare()
        return run_update(reader, bundles, settings, config).has_more
    except (Unavailable, BadBundle, BadData) as error:
        log.warning("%s. Trying again in %g s.", str(error).rstrip("."), config.pause_s)
        return False


def run_update(reader: FeedbackReader, bundles: Path, settings: Settings, config: TrainingConfig) -> UpdateStatus:
    """Read a batch of feedback, update the serving model, and publish the update or record its rejection."""
    started_s, store = time.monotonic(), open_store(settings)
    if store:
        synchronize(bundles, store)
    checkpoint = read_serving_checkpoint(bundles)
    rejected = RejectedUpdateStore(bundles)
    parent = checkpoint.metadata.version
    if len(rejected.list_unsettled(parent)) >= config.refusals_max:
        return report_frozen(bundles, rejected, parent)
    batch = reader.read(rejected.resume_positions(parent, checkpoint.metadata.positions), config.records_max)
    outcome = update(checkpoint, batch, config, settings.feedback.delays_by_task())
    if batch.erased:
        outcome = replace(outcome, left_out={**outcome.left_out, ERASED: batch.erased})
    report_update(outcome, settings)
    version = publish(outcome.checkpoint, bundles, settings.thresholds) if outcome.checkpoint else None
    if version and store:
        push(bundles, store)
    if version is None and (batch.values or batch.erased):
        rejected.add(build_rejection(outcome, checkpoint, batch), outcome.rejected_checkpoint)
    rejections = 0 if version else len(rejected.list_unsettled(parent))
    is_frozen = rejections >= config.refusals_max
    write_state(
        bundles,
        version=version or parent,
        frozen=is_frozen,
        refused_in_a_row=rejections,
        reasons=list(outcome.rejections),
        examples=outcome.examples,
        left_out=outcome.left_out,
    )
    print_result(outcome, version, parent, started_s)
    if is_frozen:
        return report_frozen(bundles, rejected, parent)
    return UpdateStatus(EXIT_REJECTED if outcome.rejections else 0, batch.has_more)


def report_update(outcome: UpdateResult, settings: Settings) -> None:
    """Log what became of the examples, and print the tables of the metrics."""
    for reason, count in outcome.left_out.items():
        log.info("%d examples are left out: %s.", count, reason)
    if not outcome.examples:
        log.info("No new examples: the serving model stays.")
    for sentence in outcome.reset:
        log.warning("The next-item part orders as its neighbours do from now on. %s", sentence)
    for sentence in outcome.rejections:
        log.warning("The update is rejected, the serving model stays. %s", sentence)
    if outcome.examples:
        print_evaluation(settings.tasks, outcome.progressive, "before learning from each example (progressive)")
        print_evaluation(settings.tasks, outcome.held_out, "after learning, on the newest examples")


def print_result(outcome: UpdateResult, version: str | None, parent: str, started_s: float) -> None:
    print_json(
        version=version,
        parent=parent,
        examples=outcome.examples,
        left_out=outcome.left_out,
        progressive=outcome.progressive,
        held_out=outcome.held_out,
        gate=outcome.gate_metrics,
        refused=list(outcome.rejections),
        seconds=round(time.monotonic() - started_s, 2),
    )


def build_rejection(outcome: UpdateResult, checkpoint: Checkpoint, batch: FeedbackBatch) -> RejectedUpdate:
    """The record of an unpublished update. Without usable examples it is settled: it is no evidence against a model."""
    metadata = (
        outcome.rejected_checkpoint.metadata
        if outcome.rejected_checkpoint
        else describe_update(checkpoint, checkpoint.build_network(), {}, batch.positions)
    )
    return RejectedUpdate(
        version=metadata.version,
        parent=checkpoint.metadata.version,
        created_ms=metadata.created_ms,
        reasons=tuple(outcome.rejections) or (NO_EXAMPLES,),
        examples=outcome.examples,
        positions=batch.positions,
        left_out=outcome.left_out,
        progressive=outcome.progressive,
        held_out=outcome.held_out,
        figures=dict(outcome.gate_metrics),
        settled=not outcome.examples,
    )


def report_frozen(bundles: Path, rejected: RejectedUpdateStore, version: str) -> UpdateStatus:
    """Log and record that the model is frozen, with the reasons."""
    rejections = rejected.list_unsettled(version)
    reasons = [sentence for rejection in rejections for sentence in rejection.reasons]
    log.error(
        "FROZEN: %s keeps serving without updates, because %d updates in a row were rejected. "
        "Inspect %s, then unfreeze it with `python -m training follow --thaw`. %s",
        version,
        len(rejections),
        bundles / "refused",
        " ".join(f"{rejection.version}: {sentence}" for rejection in rejections for sentence in rejection.reasons),
    )
    write_state(bundles, version=version, frozen=True, refused_in_a_row=len(rejections), reasons=reasons)
    return UpdateStatus(EXIT_FROZEN, has_more=False)


def thaw(bundles: Path) -> int:
    """Settle the rejected updates: the learner continues after their records."""
    version = require_current(bundles)
    settled = RejectedUpdateStore(bundles).settle(version)
    print_lines(f"{settled} rejected updates of {version} are settled; the learner may continue.")
    return 0


def write_state(bundles: Path, **state: Any) -> None:
    """Write the state of the last update for monitoring programs."""
    state["looked_ms"] = time.time_ns() // 1_000_000
    replace_durably(bundles / STATE_FILE, msgspec.json.encode(state))
