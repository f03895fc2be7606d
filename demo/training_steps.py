"""The training steps of the demo: first from history, then from the feedback on its own answers."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from contract.bundle import current_version
from demo.console import StepReporter
from demo.environment import DemoEnvironment
from demo.processes import DemoError
from demo.simulator.records import SourceRecord, encode_json

REJECTED_STATUS: Final = 3  # exit status of `training follow` when the gate rejects the update
TIMEOUT_S: Final = 240.0


class TrainingSteps:
    """Runs the training and export commands in the demo environment, as a user would."""

    def __init__(self, *, environment: DemoEnvironment, reporter: StepReporter) -> None:
        self._environment, self._reporter = environment, reporter

    @property
    def bundle_version(self) -> str:
        """Version of the current bundle; empty before the first."""
        return current_version(self._environment.bundles) or ""

    def train_from_history(self, history: Iterable[SourceRecord], days: float) -> None:
        """Simulate `days` of history, replay it into examples, train a model, and export a bundle."""
        folder = self._environment.folder
        events, examples, interactions = (
            str(folder / name) for name in ("history.jsonl", "examples.pq", "interactions.pq")
        )
        with self._reporter.step(f"Simulating {days:g} days of a shop's history") as show_status:
            show_status(f"{write_history(Path(events), history):,} events")
        with self._reporter.step("Turning history into examples, with the code that will serve") as show_status:
            report = self._run_json("training", "replay", events, "--out", examples, "--interactions", interactions)
            show_status(f"{report['examples']:,} examples")
        with self._reporter.step("Training the first model") as show_status:
            report = self._run_json("training", "fit", examples, "--interactions", interactions)
            show_status(format_evaluation(report["evaluation"]))
        with self._reporter.step("Exporting it to ONNX, compared with PyTorch") as show_status:
            self._environment.processes.run("export", "export", "--latest", "--anyway", timeout_s=TIMEOUT_S)
            show_status(f"version {self.bundle_version}")

    def train_from_feedback(self) -> bool:
        """Update the model from the feedback; whether it was published. Raises `DemoError` if there was no example."""
        with self._reporter.step("Updating the model from the feedback") as show_status:
            arguments = ("training", "follow", "--once")
            result = self._environment.processes.run(
                "training follow", *arguments, timeout_s=TIMEOUT_S, statuses=(0, REJECTED_STATUS)
            )
            report = json.loads(result.last_line)
            if result.status == REJECTED_STATUS:
                show_status(f"rejected by the gate: {' '.join(report['refused'])}")
            elif report["version"] is None:
                raise DemoError(f"There should be examples to learn from. Found: {result.last_line}")
            else:
                show_status(f"{report['examples']:,} examples, version {self.bundle_version}")
        return result.status != REJECTED_STATUS

    def _run_json(self, *arguments: str) -> dict[str, Any]:
        """Run a training command and parse the last line of its output."""
        report: dict[str, Any] = json.loads(
            self._environment.processes.run(" ".join(arguments[:2]), *arguments, timeout_s=TIMEOUT_S).last_line
        )
        return report


def format_evaluation(evaluation: dict[str, dict[str, float]]) -> str:
    """The held-out AUC or accuracy of each task, as text."""
    value_by_task = {task: metrics.get("auc", metrics.get("accuracy")) for task, metrics in evaluation.items()}
    values = ", ".join(f"{task} {value:.2f}" for task, value in value_by_task.items() if value is not None)
    return f"{values} (AUC or accuracy)"


def write_history(path: Path, records: Iterable[SourceRecord]) -> int:
    """Write events as JSON lines for `training replay`, in order of time; returns their number."""
    lines = [encode_json({"kind": record.kind, "event": record.event}) for record in records]
    path.write_bytes(b"\n".join(lines))
    return len(lines)
