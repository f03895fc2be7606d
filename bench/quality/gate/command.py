"""`python -m bench gate`: whether the promotion gate refuses all harmful updates and passes the sound ones.

A network is trained on the earlier days of the simulated shop; updates come from later days. Sound updates follow one
another, each from the model of the one before. Harmful ones (`poisons.py`) all start from the first model. An update
counts as refused if it does not serve: its labels were `doubted` before training, the `gate` refused it, or checks
`dropped` its poisoned rows and the resulting model lost at most the margin of gain in every task, on the shop's last
days, which no model was trained on. `--harm` adds what the same updates do without checks: the mean loss of gain of the
task that each harms most.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from bench.quality.gate.poisons import POISONS, Rows
from bench.quality.gate.scenario import GateScenario, load_scenario
from bench.quality.simulated_shop import add_shop_arguments
from bench.results.report import print_progress, print_result
from contract.errors import BadData
from contract.messages import Example, to_msgpack
from model.network import Network
from training.data.examples import Examples, from_rows
from training.feedback.feedback_reader import FeedbackBatch
from training.online.incremental_pass import IncrementalPass
from training.online.promotion_gate import ROWS_MIN
from training.online.replay_buffer import split_buffer
from training.online.update import TrainFunction, UpdateResult, create_update_learner, update
from training.online.update_inputs import read_buffer
from training.stats.paired_predictions import PairedPredictions
from training.trainer.learner import predict

PASSED_SHARE_MIN: Final = 0.95
CHAIN_LENGTH: Final = 10  # consecutive sound updates


def main(argv: Sequence[str]) -> int:
    """Measure. 0: every harmful update is refused and 95 % of the sound ones pass; 1: not so."""
    arguments, started_s = parse(argv), time.process_time()
    scenario, trial_count = load_scenario(arguments), max(1, round(100 * arguments.scale))
    harmful = [try_harmful(scenario, number, arguments.rows, harm=arguments.harm) for number in range(trial_count)]
    healthy = list(try_healthy(scenario, trial_count, arguments.rows))
    figures = summarize_trials(harmful, healthy)
    if not arguments.harm:
        del figures["harm"]
    figures |= {"examples": len(scenario.update_examples), "seconds": round(time.process_time() - started_s, 1)}
    print_result(figures, as_json=arguments.json)
    all_refused = figures["refused"] == figures["harmful"]
    enough_passed = figures["passed"] >= PASSED_SHARE_MIN * figures["healthy"]
    return 0 if all_refused and enough_passed else 1


@dataclass(frozen=True, slots=True)
class HarmfulTrial:
    """A harmful update: its outcome (`doubted`, `gate`, `dropped`, or `served`), and its harm without checks."""

    kind: str
    outcome: str
    harm: float
    reason: str


def try_harmful(scenario: GateScenario, number: int, rows: int, *, harm: bool) -> HarmfulTrial:
    kind = list(POISONS)[number % len(POISONS)]
    poison, make_learn = POISONS[kind]
    clean_rows = sample_window(scenario.update_examples, np.random.default_rng(number), rows).to_rows()
    poisoned_rows = poison(clean_rows, np.random.default_rng(number))
    learn = make_learn(scenario.plan, np.random.default_rng(number))
    result = update(scenario.base, make_feedback(poisoned_rows, clean_rows), scenario.plan, train=learn)
    harm_done = 0.0
    if harm:
        learn_again = make_learn(scenario.plan, np.random.default_rng(number))
        harm_done = measure_unguarded_harm(scenario, poisoned_rows, learn_again)
    trial = HarmfulTrial(kind, classify_outcome(scenario, result), harm_done, "; ".join(result.rejections)[:200])
    harm_text = f"harm {trial.harm:.3f} " if harm else ""
    print_progress(f"{number:4} {kind:26} {trial.outcome:8} {harm_text}{trial.reason or result.left_out}")
    return trial


def classify_outcome(scenario: GateScenario, result: UpdateResult) -> str:
    if result.rejections:
        return "gate" if result.rejected_checkpoint else "doubted"
    if result.checkpoint is None:
        return "dropped"  # no rows were left to learn from
    harmless = measure_worst_loss(scenario, result.checkpoint.build_network()) <= scenario.plan.margin
    return "dropped" if harmless and set(result.left_out) - {"without a label"} else "served"


def measure_unguarded_harm(scenario: GateScenario, rows: Rows, learn: TrainFunction) -> float:
    """The loss of gain of the task that loses most, on the test examples, without checks."""
    network, buffer = scenario.base.build_network(), read_buffer(scenario.base)
    try:
        examples = from_rows(rows, *scenario.base.metadata.schema())
        learn(
            create_update_learner(network, scenario.base.optimizer, scenario.plan),
            IncrementalPass(scenario.base.build_network(), examples, split_buffer(buffer).replay if buffer else None),
            scenario.plan,
        )
    except BadData:
        return float("inf")
    return measure_worst_loss(scenario, network.eval())


def measure_worst_loss(scenario: GateScenario, network: Network) -> float:
    """The largest loss of gain of a task on the test examples; infinite if a prediction is not a number."""
    predictions = PairedPredictions("true", scenario.truth, scenario.base_predictions, predict(network, scenario.truth))
    evaluated_tasks = [task for task in network.tasks if scenario.truth.has_label(task).sum() >= ROWS_MIN]
    losses = [float(predictions.pair_losses(task).loss_increase.mean()) for task in evaluated_tasks]
    return max(losses) if np.isfinite(losses).all() else float("inf")


def try_healthy(scenario: GateScenario, count: int, rows: int) -> Iterator[UpdateResult]:
    """Chains of updates in order of time, each from the last model that passed."""
    for first in range(0, count, CHAIN_LENGTH):
        checkpoint, rng = scenario.base, np.random.default_rng(1_000 + first)
        ends = np.sort(rng.integers(rows, len(scenario.update_examples) + 1, CHAIN_LENGTH))
        for number, end in enumerate(ends[: count - first]):
            size = int(rng.integers(rows // 4, rows + 1))
            window = scenario.update_examples.take(np.arange(max(0, end - 3 * size), end))
            sampled_rows = window.take(np.sort(rng.permutation(len(window))[:size])).to_rows()
            result = update(checkpoint, make_feedback(sampled_rows, sampled_rows), scenario.plan)
            checkpoint = result.checkpoint or checkpoint
            passed = "passed" if result.checkpoint else "REFUSED"
            print_progress(f"{first + number:4} sound update of {size} {passed} {'; '.join(result.rejections)}")
            yield result
        worst_loss = measure_worst_loss(scenario, checkpoint.build_network())
        print_progress(f"     largest loss of a task after this chain: {worst_loss:.3f}")


def sample_window(examples: Examples, rng: np.random.Generator, rows: int) -> Examples:
    """A random half of the examples of some hours."""
    start = int(rng.integers(0, len(examples) - 2 * rows))
    return examples.take(np.sort(start + rng.permutation(2 * rows)[:rows]))


def make_feedback(rows: Rows, clean_rows: Rows) -> FeedbackBatch:
    """Rows as read from the topic; its newest record has the time of the newest unpoisoned label."""
    newest_ms = max(ms for row in clean_rows for ms in (row.ts_ms, *row.known_ms.values()))
    values = [to_msgpack(revision) for row in rows for revision in list_revisions(row)]
    return FeedbackBatch(values, {"shop.feedback/0": len(values)}, newest_ms)


def list_revisions(row: Example) -> Iterator[Example]:
    """The joiner's revisions of an example: a click at once, its purchase label as a second revision."""
    if row.labels.get("click") == 1 and "purchase" in row.labels:
        yield msgspec.structs.replace(row, revision=1, labels={"click": 1.0}, known_ms={"click": row.known_ms["click"]})
    yield row


def summarize_trials(harmful: Sequence[HarmfulTrial], healthy: Sequence[UpdateResult]) -> dict[str, Any]:
    names = [kind for kind in POISONS if any(trial.kind == kind for trial in harmful)]
    trials_by_kind = {kind: [trial for trial in harmful if trial.kind == kind] for kind in names}
    counts_by_kind = {
        kind: {
            outcome: n
            for outcome in ("doubted", "gate", "dropped", "served")
            if (n := sum(trial.outcome == outcome for trial in trials))
        }
        for kind, trials in trials_by_kind.items()
    }
    return {
        "harmful": len(harmful),
        "refused": sum(trial.outcome != "served" for trial in harmful),
        "healthy": len(healthy),
        "passed": sum(result.checkpoint is not None for result in healthy),
        "kinds": {kind: sum(trial.outcome != "served" for trial in trials) for kind, trials in trials_by_kind.items()},
        "tried": {kind: len(trials) for kind, trials in trials_by_kind.items()},
        "by": counts_by_kind,
        "harm": {
            kind: round_finite(float(np.mean([trial.harm for trial in trials])))
            for kind, trials in trials_by_kind.items()
        },
    }


def round_finite(value: float) -> float | str:
    """Rounded, or a text, since JSON has no infinity."""
    return round(value, 3) if np.isfinite(value) else "not finite"


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench gate", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the figures as one line of JSON")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the hundred updates of either kind")
    parser.add_argument("--harm", action="store_true", help="also train on harmful updates without checks")
    parser.add_argument("--rows", type=int, default=1_500, help="maximum number of examples of an update")
    add_shop_arguments(parser, days=14, people=600, items=400)
    cache_folder = Path(tempfile.gettempdir()) / "shopstream-bench-gate"
    parser.add_argument(
        "--kept", type=Path, default=cache_folder, help="the folder of kept examples and the first model"
    )
    return parser.parse_args(argv)
