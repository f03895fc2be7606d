"""`python -m training follow`: the feedback topic in, better bundles out."""

import time
from argparse import Namespace
from pathlib import Path
from typing import Any, Final

import msgspec
import torch

from contract.bundle import replace_durably
from contract.errors import BadBundle, BadData, Unavailable
from contract.features import FeatureSet
from contract.settings import Settings
from export.pointer import present
from model.checkpoint import Checkpoint
from training.feed import Fed, Feed
from training.follow import Update, present_checkpoint, successor, update
from training.lock import sole_learner
from training.plan import Plan, read_plan
from training.publishing import clear_away, publish
from training.refused import STATE, Refusal, Refused
from training.report import print_json, say, show_evaluation

REFUSED: Final = 3
FROZEN: Final = 4


def run(args: Namespace, settings: Settings, features: FeatureSet) -> int:
    """Learn once, or for ever; exit code 3 when the update was refused, 4 when the model is frozen."""
    bundles: Path = args.bundles or settings.bundles
    plan = read_plan(settings.training)
    if args.thaw:
        return thaw(bundles)
    torch.set_num_threads(plan.threads)
    with sole_learner(bundles):
        if cut := clear_away(bundles):
            say(f"{cut} was not published to its end: what was left of it is deleted, and it is learned again.")
        feed = Feed(kafka=settings.kafka, topic=settings.topics.feedback)
        try:
            if args.once:
                return learn_once(feed, bundles, settings, plan)
            while True:
                if not learn_patiently(feed, bundles, settings, plan):
                    time.sleep(plan.pause_s)
        except KeyboardInterrupt:
            return 0
        finally:
            feed.close()


def learn_patiently(feed: Feed, bundles: Path, settings: Settings, plan: Plan) -> bool:
    """Look once; what is missing now, Kafka or a first bundle, may be there at the next look. True: there is more."""
    try:
        return look(feed, bundles, settings, plan)[1]
    except (Unavailable, BadBundle, BadData) as error:
        say(f"{error} Trying again in {plan.pause_s:g} s.")
        return False


def learn_once(feed: Feed, bundles: Path, settings: Settings, plan: Plan) -> int:
    """Look at the feedback once, and publish what it makes better."""
    return look(feed, bundles, settings, plan)[0]


def look(feed: Feed, bundles: Path, settings: Settings, plan: Plan) -> tuple[int, bool]:
    """Look once; returns the exit code, and whether there was more to read than is learned from at once."""
    begun, checkpoint, refused = time.monotonic(), present_checkpoint(bundles), Refused(bundles)
    parent = checkpoint.about.version
    if len(refused.unsettled(parent)) >= plan.refusals_max:
        return tell_frozen(bundles, refused, parent), False
    fed = feed.read(refused.behind(parent, checkpoint.about.positions), plan.records_max)
    found = update(checkpoint, fed, plan, settings.feedback.delayed())
    tell(found, settings)
    version = publish(found.checkpoint, bundles, settings.thresholds) if found.checkpoint else None
    if version is None and fed.values:
        refused.keep(refusal_of(found, checkpoint, fed), found.aside)
    in_a_row = 0 if version else len(refused.unsettled(parent))
    state = {"version": version or parent, "frozen": in_a_row >= plan.refusals_max, "refused_in_a_row": in_a_row}
    keep_state(bundles, **state, reasons=list(found.refused), examples=found.examples, left_out=found.left_out)
    print_json(
        version=version,
        parent=parent,
        examples=found.examples,
        left_out=found.left_out,
        progressive=found.progressive,
        held_out=found.held_out,
        gate=found.figures,
        refused=list(found.refused),
        seconds=round(time.monotonic() - begun, 2),
    )
    if state["frozen"]:
        return tell_frozen(bundles, refused, parent), False
    return REFUSED if found.refused else 0, fed.more


def tell(found: Update, settings: Settings) -> None:
    for why, count in found.left_out.items():
        say(f"{count} examples are left out: {why}.")
    if not found.examples:
        say("No new examples: the present model stays.")
    for sentence in found.refused:
        say(f"The update is refused, the present model stays. {sentence}")
    if found.examples:
        show_evaluation(settings.tasks, found.progressive, "before learning from each example (progressive)")
        show_evaluation(settings.tasks, found.held_out, "after learning, on the newest examples")


def refusal_of(found: Update, checkpoint: Checkpoint, fed: Fed) -> Refusal:
    """What to keep of an update that is not published. One that had nothing to learn from says nothing of a model."""
    about = found.aside.about if found.aside else successor(checkpoint, checkpoint.network(), {}, fed.positions)
    nothing = "There should be examples to learn from. Found none that can be."
    return Refusal(
        version=about.version,
        parent=checkpoint.about.version,
        created_ms=about.created_ms,
        reasons=tuple(found.refused) or (nothing,),
        examples=found.examples,
        positions=fed.positions,
        left_out=found.left_out,
        progressive=found.progressive,
        held_out=found.held_out,
        figures=dict(found.figures),
        settled=not found.examples,
    )


def tell_frozen(bundles: Path, refused: Refused, version: str) -> int:
    """Say loudly that nothing is learned any more, and why."""
    found = refused.unsettled(version)
    say(
        f"FROZEN: {version} serves on and nothing is learned, since {len(found)} updates in a row were refused. "
        f"Look at {bundles / 'refused'}; then `python -m training follow --thaw` lets it go on.",
        *(f"{refusal.version}: {sentence}" for refusal in found for sentence in refusal.reasons),
    )
    keep_state(
        bundles,
        version=version,
        frozen=True,
        refused_in_a_row=len(found),
        reasons=[sentence for refusal in found for sentence in refusal.reasons],
    )
    return FROZEN


def thaw(bundles: Path) -> int:
    """A person has looked: the learner may go on, behind what was refused."""
    version = present(bundles)
    say(f"{Refused(bundles).settle(version)} refused updates of {version} are settled; the learner may go on.")
    return 0


def keep_state(bundles: Path, **state: Any) -> None:
    """What programs that watch should know of the last look."""
    state["looked_ms"] = time.time_ns() // 1_000_000
    replace_durably(bundles / STATE, msgspec.json.encode(state))
