"""The lessons of the demo: what the model learns from history, and then from its own answers."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from contract.bundle import current_version
from demo.console import StepReporter
from demo.environment import DemoEnvironment
from demo.processes import DemoError
from demo.simulator.records import SourceRecord, encode_json

REJECTED_STATUS: Final = 3  # how `training follow` ends when the gate keeps the present model
TIMEOUT_S: Final = 240.0


class TrainingSteps:
    """Runs the commands of training and export on a site, as anybody would run them."""

    def __init__(self, *, environment: DemoEnvironment, reporter: StepReporter) -> None:
        self._environment, self._reporter = environment, reporter

    @property
    def bundle_version(self) -> str:
        """Of the present bundle, empty before the first."""
        return current_version(self._environment.bundles) or ""

    def train_from_history(self, history: Iterable[SourceRecord], days: float) -> None:
        """Events to examples to a model to a bundle."""
        folder = self._environment.folder
        events, examples, interactions = (str(folder / name) for name in ("history.jsonl", "examples.pq", "taken.pq"))
        with self._reporter.step(f"Living through {days:g} days of a simulated shop") as say:
            say(f"{write_history(Path(events), history):,} events")
        with self._reporter.step("Turning history into examples, by the code that will serve") as say:
            report = self._run_json("training", "replay", events, "--out", examples, "--interactions", interactions)
            say(f"{report['examples']:,} examples")
        with self._reporter.step("Training the first model") as say:
            report = self._run_json("training", "fit", examples, "--interactions", interactions)
            say(format_evaluation(report["evaluation"]))
        with self._reporter.step("Exporting it to ONNX, checked against torch") as show_status:
            self._environment.processes.run("export", "export", "--latest", timeout_s=TIMEOUT_S)
            show_status(f"version {self.bundle_version}")

    def train_from_feedback(self) -> bool:
        """Learn from what came back; whether a better model was published. Raises `Failed` if there was no example."""
        with self._reporter.step("Learning from the feedback") as show_status:
            arguments = ("training", "follow", "--once")
            result = self._environment.processes.run(
                "training follow", *arguments, timeout_s=TIMEOUT_S, statuses=(0, REJECTED_STATUS)
            )
            report = json.loads(result.last_line)
            if result.status == REJECTED_STATUS:
                show_status(f"refused by the gate: {' '.join(report['refused'])}")
            elif report["version"] is None:
                raise DemoError(f"There should be examples to learn from. Found: {result.last_line}")
            else:
                show_status(f"{report['examples']:,} examples, version {self.bundle_version}")
        return result.status != REJECTED_STATUS

    def _run_json(self, *arguments: str) -> dict[str, Any]:
        """The last line that a command of training prints, which is JSON."""
        report: dict[str, Any] = json.loads(
            self._environment.processes.run(" ".join(arguments[:2]), *arguments, timeout_s=TIMEOUT_S).last_line
        )
        return report


def format_evaluation(evaluation: dict[str, dict[str, float]]) -> str:
    """How well each task is answered on what was held out."""
    value_by_task = {task: metrics.get("auc", metrics.get("accuracy")) for task, metrics in evaluation.items()}
    return (
        ", ".join(f"{task} {value:.2f}" for task, value in value_by_task.items() if value is not None)
        + " (AUC or accuracy)"
    )


def write_history(path: Path, records: Iterable[SourceRecord]) -> int:
    """Write events as `training replay` reads them, a line each in the order of time; returns their number."""
    lines = [encode_json({"kind": record.kind, "event": record.event}) for record in records]
    path.write_bytes(b"\n".join(lines))
    return len(lines)
