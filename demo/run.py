"""`python -m demo run`: the whole cycle once, on one machine, from an empty start.

A simulated shop provides its history. A model is trained on it and exported. Workers answer the shop's live events. The
joiner joins their answers with later events into examples. The model is updated from those examples, and the running
workers switch to the new version.
"""

from contextlib import ExitStack
from typing import Final

from demo.console import StepReporter
from demo.environment import DemoEnvironment
from demo.live.live_phase import LivePhase
from demo.live.newcomer import follow_newcomer
from demo.processes import DemoError
from demo.simulator.shop import ShopSimulator
from demo.summary import DemoResult, print_summary
from demo.training_steps import TrainingSteps

HISTORY_DAYS: Final = 8.0
LIVE_DAYS: Final = 3.0
EXTRA_DAYS: Final = 1.0
UPDATES_MAX: Final = 3


def run(seed: int, *, keep: bool) -> int:
    """Run the whole cycle; returns 0. Raises `DemoError`, with the end of a log, if a part of it fails."""
    reporter = StepReporter()
    shop = ShopSimulator(seed)
    with ExitStack() as stack:
        with reporter.step("Starting an embedded Kafka and Valkey"):
            environment = DemoEnvironment(stack)
        training = TrainingSteps(environment=environment, reporter=reporter)
        live_phase = LivePhase(environment=environment, reporter=reporter, shop=shop)
        training.train_from_history(shop.simulate_history(HISTORY_DAYS), HISTORY_DAYS)
        live_phase.start_workers()
        live_phase.run_days(LIVE_DAYS)
        first_version = training.bundle_version
        learn_from_feedback(training, live_phase)
        live_phase.wait_for_version(training.bundle_version)
        check_nothing_trimmed(environment)
        with reporter.step("Watching a newcomer's list"):
            newcomer = follow_newcomer(environment, live_phase, shop)
        result = DemoResult(
            environment=environment,
            shop=shop,
            live_phase=live_phase,
            versions=(first_version, training.bundle_version),
            newcomer=newcomer,
            elapsed_s=reporter.elapsed_s,
        )
        print_summary(reporter.console, result)
        if keep:
            reporter.console.print("\nEverything keeps running; Ctrl-C ends it.")
            live_phase.run_forever()
    return 0


def learn_from_feedback(training: TrainingSteps, live_phase: LivePhase) -> None:
    """Update the model until the gate accepts a version; each rejection is followed by more live events."""
    for _ in range(UPDATES_MAX):
        if training.train_from_feedback():
            return
        live_phase.run_days(EXTRA_DAYS)
    raise DemoError(f"The gate should accept one of {UPDATES_MAX} updates. Found that it rejected all.")


def check_nothing_trimmed(environment: DemoEnvironment) -> None:
    """Check that the embedded Kafka, which keeps only the latest records, still holds all: the summary counts them."""
    if trimmed_partitions := environment.outputs.find_trimmed_partitions(environment.topics):
        raise DemoError(
            f"The embedded Kafka should still hold every record. Found trimmed partitions: {trimmed_partitions}."
        )
