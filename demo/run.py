"""`python -m demo run`: the whole way once, on one machine, from nothing.

A simulated shop brings its history; a model learns from it and is exported; workers answer the shop's live events; what
they answered is joined with what happened into examples; the model learns from those, and the running workers take up
the new one.
"""

from contextlib import ExitStack
from typing import Final

from demo.console import StepReporter
from demo.environment import DemoEnvironment
from demo.live_phase import LivePhase
from demo.processes import DemoError
from demo.simulator.shop import ShopSimulator
from demo.summary import DemoResult, print_summary
from demo.training_steps import TrainingSteps

HISTORY_DAYS: Final = 8.0
LIVE_DAYS: Final = 3.0
EXTRA_DAYS: Final = 1.0
UPDATES_MAX: Final = 3


def run(seed: int, *, keep: bool) -> int:
    """Tell the whole story; 0 at its end. Raises `Failed` with a log's end when a part of it does not work."""
    reporter, shop = StepReporter(), ShopSimulator(seed)
    with ExitStack() as stack:
        with reporter.step("Starting an embedded Kafka and Valkey"):
            environment = DemoEnvironment(stack)
        training, live_phase = (
            TrainingSteps(environment=environment, reporter=reporter),
            LivePhase(environment=environment, reporter=reporter, shop=shop),
        )
        training.train_from_history(shop.simulate_history(HISTORY_DAYS), HISTORY_DAYS)
        live_phase.start_workers()
        live_phase.run_days(LIVE_DAYS)
        first_version = training.bundle_version
        learn_from_feedback(training, live_phase)
        live_phase.wait_for_version(training.bundle_version)
        check_nothing_trimmed(environment)
        versions = (first_version, training.bundle_version)
        print_summary(
            reporter.console,
            DemoResult(
                environment=environment,
                shop=shop,
                live_phase=live_phase,
                versions=versions,
                elapsed_s=reporter.elapsed_s,
            ),
        )
        if keep:
            reporter.console.print("\nThe shop goes on; Ctrl-C ends it.")
            live_phase.run_forever()
    return 0


def learn_from_feedback(training: TrainingSteps, live_phase: LivePhase) -> None:
    """Until a model is published that the gate finds no worse; each refusal is answered with more feedback."""
    for _ in range(UPDATES_MAX):
        if training.train_from_feedback():
            return
        live_phase.run_days(EXTRA_DAYS)
    raise DemoError(f"The gate should let one of {UPDATES_MAX} updates pass. Found all refused.")


def check_nothing_trimmed(environment: DemoEnvironment) -> None:
    """The embedded Kafka keeps the latest records alone: what was counted must still be all there is."""
    if trimmed_partitions := environment.outputs.find_trimmed_partitions(environment.topics):
        raise DemoError(
            f"The embedded Kafka should still hold all that was sent. Found these cut: {trimmed_partitions}."
        )
