"""`python -m training follow`: the feedback topic in, better bundles out."""

import time
from argparse import Namespace
from pathlib import Path
from typing import Final

import torch

from contract.errors import BadBundle, Unavailable
from contract.features import FeatureSet
from contract.settings import Settings
from export.bundling import export
from model.checkpoint import write_checkpoint
from training.feed import Feed
from training.follow import Update, present_checkpoint, update
from training.plan import Plan, read_plan
from training.report import print_json, say, show_evaluation

REFUSED: Final = 3


def run(args: Namespace, settings: Settings, features: FeatureSet) -> int:
    """Learn once, or for ever; exit code 3 when the update was refused."""
    bundles: Path = args.bundles or settings.bundles
    plan = read_plan(settings.training)
    torch.set_num_threads(plan.threads)
    feed = Feed(kafka=settings.kafka, topic=settings.topics.feedback)
    try:
        if args.once:
            return learn_once(feed, bundles, settings, plan)
        while True:
            learn_patiently(feed, bundles, settings, plan)
            time.sleep(plan.pause_s)
    except KeyboardInterrupt:
        return 0
    finally:
        feed.close()


def learn_once(feed: Feed, bundles: Path, settings: Settings, plan: Plan) -> int:
    """Look at the feedback once, and publish what it makes better."""
    begun, checkpoint = time.monotonic(), present_checkpoint(bundles)
    found = update(checkpoint, feed.read(checkpoint.about.positions), plan, settings.feedback.delayed())
    for why, count in found.left_out.items():
        say(f"{count} examples are left out: {why}.")
    if not found.examples:
        say("No new examples: the present model stays.")
    for sentence in found.refused:
        say(f"The update is refused, the present model stays. {sentence}")
    if found.examples:
        show_evaluation(settings.tasks, found.progressive, "before learning from each example (progressive)")
        show_evaluation(settings.tasks, found.held_out, "after learning, on the newest examples")
    version = publish(found, bundles, settings)
    print_json(
        version=version,
        parent=checkpoint.about.version,
        examples=found.examples,
        left_out=found.left_out,
        progressive=found.progressive,
        held_out=found.held_out,
        refused=list(found.refused),
        seconds=round(time.monotonic() - begun, 2),
    )
    return REFUSED if found.refused else 0


def publish(found: Update, bundles: Path, settings: Settings) -> str | None:
    """Keep and export a better model; returns its version. A bundle never appears without its checkpoint."""
    if found.checkpoint is None:
        return None
    path = write_checkpoint(bundles, found.checkpoint)
    try:
        return export(found.checkpoint, bundles, settings.thresholds).manifest.version
    except BadBundle:
        path.unlink()
        raise


def learn_patiently(feed: Feed, bundles: Path, settings: Settings, plan: Plan) -> None:
    """Look once; what is missing now, Kafka or a first bundle, may be there at the next look."""
    try:
        learn_once(feed, bundles, settings, plan)
    except (Unavailable, BadBundle) as error:
        say(f"{error} Trying again in {plan.pause_s:g} s.")
