"""`python -m training follow`: the feedback topic in, better bundles out."""

import time
from argparse import Namespace
from pathlib import Path
from typing import Any, Final

import msgspec
import torch

from contract.bundle import replace_durably
from contract.errors import BadBundle, BadData, Unavailable
from contract.features.declaration import FeatureSet
from contract.settings import Settings, TrainingConfig
from export.releases import require_current
from model.checkpoint import Checkpoint
from training.feedback.feedback_reader import FeedbackBatch, FeedbackReader
from training.online.lock import learner_lock
from training.online.publication import clean_up, publish
from training.online.rejected_updates import STATE_FILE, RejectedUpdate, RejectedUpdateStore
from training.online.update import UpdateResult, describe_update, read_serving_checkpoint, update
from training.report.console import print_evaluation, print_json, print_lines
from training.trainer.config import check_balance

EXIT_REJECTED: Final = 3
EXIT_FROZEN: Final = 4


def run(args: Namespace, settings: Settings, features: FeatureSet) -> int:
    """Learn once, or for ever; exit code 3 when the update was refused, 4 when the model is frozen."""
    bundles: Path = args.bundles or settings.bundles
    plan = settings.training
    check_balance(plan)
    if args.thaw:
        return thaw(bundles)
    torch.set_num_threads(plan.threads)
    with learner_lock(bundles):
        if removed := clean_up(bundles):
            print_lines(
                f"{removed} was not published to its end: what was left of it is deleted, and it is learned again."
            )
        feed = FeedbackReader(kafka=settings.kafka, topic=settings.topics.feedback)
        try:
            if args.once:
                return learn_once(feed, bundles, settings, plan)
            while True:
                if not learn_with_retry(feed, bundles, settings, plan):
                    time.sleep(plan.pause_s)
        except KeyboardInterrupt:
            return 0
        finally:
            feed.close()


def learn_with_retry(feed: FeedbackReader, bundles: Path, settings: Settings, plan: TrainingConfig) -> bool:
    """Look once; what is missing now, Kafka or a first bundle, may be there at the next look. True: there is more."""
    try:
        return run_update(feed, bundles, settings, plan)[1]
    except (Unavailable, BadBundle, BadData) as error:
        print_lines(f"{error} Trying again in {plan.pause_s:g} s.")
        return False


def learn_once(feed: FeedbackReader, bundles: Path, settings: Settings, plan: TrainingConfig) -> int:
    """Look at the feedback once, and publish what it makes better."""
    return run_update(feed, bundles, settings, plan)[0]


def run_update(feed: FeedbackReader, bundles: Path, settings: Settings, plan: TrainingConfig) -> tuple[int, bool]:
    """Look once; returns the exit code, and whether there was more to read than is learned from at once."""
    started_s, checkpoint, rejected = time.monotonic(), read_serving_checkpoint(bundles), RejectedUpdateStore(bundles)
    parent = checkpoint.metadata.version
    if len(rejected.list_unsettled(parent)) >= plan.refusals_max:
        return report_frozen(bundles, rejected, parent), False
    batch = feed.read(rejected.resume_positions(parent, checkpoint.metadata.positions), plan.records_max)
    outcome = update(checkpoint, batch, plan, settings.feedback.delays_by_task())
    print_update(outcome, settings)
    version = publish(outcome.checkpoint, bundles, settings.thresholds) if outcome.checkpoint else None
    if version is None and batch.values:
        rejected.add(build_rejection(outcome, checkpoint, batch), outcome.rejected_checkpoint)
    in_a_row = 0 if version else len(rejected.list_unsettled(parent))
    state = {"version": version or parent, "frozen": in_a_row >= plan.refusals_max, "refused_in_a_row": in_a_row}
    write_state(
        bundles, **state, reasons=list(outcome.rejections), examples=outcome.examples, left_out=outcome.left_out
    )
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
    if state["frozen"]:
        return report_frozen(bundles, rejected, parent), False
    return EXIT_REJECTED if outcome.rejections else 0, batch.has_more


def print_update(outcome: UpdateResult, settings: Settings) -> None:
    for reason, count in outcome.left_out.items():
        print_lines(f"{count} examples are left out: {reason}.")
    if not outcome.examples:
        print_lines("No new examples: the present model stays.")
    for sentence in outcome.rejections:
        print_lines(f"The update is refused, the present model stays. {sentence}")
    if outcome.examples:
        print_evaluation(settings.tasks, outcome.progressive, "before learning from each example (progressive)")
        print_evaluation(settings.tasks, outcome.held_out, "after learning, on the newest examples")


def build_rejection(outcome: UpdateResult, checkpoint: Checkpoint, batch: FeedbackBatch) -> RejectedUpdate:
    """What to keep of an update that is not published. One that had nothing to learn from says nothing of a model."""
    about = (
        outcome.rejected_checkpoint.metadata
        if outcome.rejected_checkpoint
        else describe_update(checkpoint, checkpoint.build_network(), {}, batch.positions)
    )
    no_examples = "There should be examples to learn from. Found none that can be."
    return RejectedUpdate(
        version=about.version,
        parent=checkpoint.metadata.version,
        created_ms=about.created_ms,
        reasons=tuple(outcome.rejections) or (no_examples,),
        examples=outcome.examples,
        positions=batch.positions,
        left_out=outcome.left_out,
        progressive=outcome.progressive,
        held_out=outcome.held_out,
        figures=dict(outcome.gate_metrics),
        settled=not outcome.examples,
    )


def report_frozen(bundles: Path, rejected: RejectedUpdateStore, version: str) -> int:
    """Say loudly that nothing is learned any more, and why."""
    rejections = rejected.list_unsettled(version)
    print_lines(
        f"FROZEN: {version} serves on and nothing is learned, since {len(rejections)} updates in a row were refused. "
        f"Look at {bundles / 'refused'}; then `python -m training follow --thaw` lets it go on.",
        *(f"{rejection.version}: {sentence}" for rejection in rejections for sentence in rejection.reasons),
    )
    write_state(
        bundles,
        version=version,
        frozen=True,
        refused_in_a_row=len(rejections),
        reasons=[sentence for rejection in rejections for sentence in rejection.reasons],
    )
    return EXIT_FROZEN


def thaw(bundles: Path) -> int:
    """A person has looked: the learner may go on, behind what was refused."""
    version = require_current(bundles)
    print_lines(
        f"{RejectedUpdateStore(bundles).settle(version)} refused updates of {version} are settled; the learner may go on."
    )
    return 0


def write_state(bundles: Path, **state: Any) -> None:
    """What programs that watch should know of the last look."""
    state["looked_ms"] = time.time_ns() // 1_000_000
    replace_durably(bundles / STATE_FILE, msgspec.json.encode(state))
