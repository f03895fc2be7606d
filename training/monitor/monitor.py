"""The watcher: reads what was served and what became true, tells how good the serving model is, and takes it back.

It stands beside workers, joiner and learner and leans on none of them: what it knows it reads from two topics and the
folder of bundles, and the one thing that it changes is the pointer, back to the parent of a bundle that is worse.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import msgspec

from contract.bundle import current_version, read_manifest
from contract.errors import BadBundle, BadData
from contract.features.declaration import FeatureSet
from contract.messages import read_example, read_scored_row
from contract.settings import Settings
from model.checkpoint import checkpoint_path, read_checkpoint
from training.feedback.chunked_reader import RecordChunk
from training.monitor import metrics
from training.monitor.alpha_spending import AlphaSpending
from training.monitor.config import MonitorConfig
from training.monitor.drift import Alarm, DriftDetector
from training.monitor.live_metrics import LiveMetrics
from training.monitor.rollback import Withdrawal, find_rollback_target, find_unfinished, finish_withdrawal, withdraw
from training.monitor.rollback_test import RollbackTest, RollbackTestResult
from training.online.rejected_updates import is_frozen
from training.report.console import print_lines
from training.trainer.evaluation import Evaluation


class RecordSource(Protocol):
    """What gives records in portions; see `training.feedback.chunked_reader`."""

    def read(self, positions: Mapping[str, int]) -> RecordChunk:
        """What comes next, and where to go on; raises `Unavailable`."""


@dataclass(frozen=True, slots=True)
class MonitorReport:
    """What came of one look at everything; `withdrawn`: the bundle that was taken back by it."""

    figures: dict[str, Evaluation] = field(default_factory=dict)
    alarms: Sequence[Alarm] = ()
    test_result: RollbackTestResult | None = None
    withdrawal: Withdrawal | None = None


class ModelMonitor:
    """Looks as often as it is asked to; what it has read and what it keeps in mind stay in memory between looks."""

    def __init__(
        self,
        *,
        settings: Settings,
        features: FeatureSet,
        bundles: Path,
        config: MonitorConfig,
        scored: RecordSource,
        feedback: RecordSource,
    ) -> None:
        self._settings, self._features, self._bundles, self._config = settings, features, bundles, config
        self._topics = {"scored": scored, "feedback": feedback}
        self._positions: dict[str, dict[str, int]] = {"scored": {}, "feedback": {}}
        self._live_metrics = LiveMetrics(tasks=settings.tasks, feedback=settings.feedback, config=config)
        self._drift_detector = DriftDetector(features=features, config=config, folder=bundles / "drift")
        self._alarms = list[Alarm]()
        self._rollback_test: RollbackTest | None = None
        self._last_message = ""

    def check(self) -> MonitorReport:
        """Read both topics to their ends, show the figures, and judge the bundle that serves. Raises `Unavailable`."""
        self._read_to_end("scored", self._observe_scored)
        self._read_to_end("feedback", lambda value: self._live_metrics.observe(read_example(value)))
        self._live_metrics.evict_old()
        alarms, self._alarms = self._alarms, []
        thresholds, versions = self._thresholds(), self._live_metrics.versions()
        figures = {version: self._live_metrics.evaluate(version, thresholds) for version in versions}
        self._export_metrics(figures)
        test_result, withdrawal = self._test_serving()
        metrics.CHECKS.inc()
        return MonitorReport(
            {version: evaluation for version, evaluation in figures.items() if evaluation},
            alarms,
            test_result,
            withdrawal,
        )

    def _read_to_end(self, name: str, observe: Callable[[bytes], None]) -> None:
        """Take a topic's records to its present end, a portion at a time; one that cannot be used is counted."""
        topic = self._topics[name]
        is_last = False
        while not is_last:
            portion = topic.read(self._positions[name])
            for record in portion.records:
                try:
                    observe(record.value or b"")
                except msgspec.MsgspecError:
                    metrics.LEFT_OUT.labels("unreadable").inc()
            self._positions[name], is_last = portion.positions, portion.is_last
            metrics.RECORDS.labels(name).inc(len(portion.records))

    def _observe_scored(self, value: bytes) -> None:
        row = read_scored_row(value)
        if row.features != self._features.digest:
            metrics.LEFT_OUT.labels("of other features").inc()
            return
        comparison = self._drift_detector.observe(row)
        if comparison is None:
            return
        metrics.DRIFT_BLOCKS.labels(comparison.kind).inc()
        self._alarms += comparison.alarms
        for alarm in comparison.alarms:
            metrics.DRIFT_ALARMS.labels(alarm.kind, alarm.column).inc()
            print_lines(f"Drift: `{alarm.column}` of {alarm.kind} rows is not what it was (p = {alarm.p:.1g}).")

    def _thresholds(self) -> dict[str, dict[str, float]]:
        """What the shop compares probabilities with, as a worker takes them."""
        try:
            version = current_version(self._bundles)
            of_bundle = read_manifest(self._bundles, version).thresholds if version else {}
        except BadBundle:
            of_bundle = {}
        return {**of_bundle, **self._settings.thresholds}

    def _export_metrics(self, figures: dict[str, Evaluation]) -> None:
        metrics.set_live_metrics(figures)
        metrics.FEEDBACK_TIME.set(self._live_metrics.now_ms / 1_000)
        metrics.LEARNER_FROZEN.set(is_frozen(self._bundles))
        for graph, share in self._live_metrics.user_shares().items():
            metrics.USER_SHARE.labels(graph).set(share)

    def _test_serving(self) -> tuple[RollbackTestResult | None, Withdrawal | None]:
        """Compare the bundle that serves with its parent, and go back where it is worse. What hinders it is said."""
        try:
            version = current_version(self._bundles)
            if version is None:
                self._print_once(f"{self._bundles} has no present bundle yet: there is none to watch.")
                return None, None
            if withdrawal := find_unfinished(self._bundles, version):
                return None, self._report_rollback(finish_withdrawal(self._bundles, withdrawal))
            parent = find_rollback_target(self._bundles, version)
            rollback_test = self._load_rollback_test(version, parent)
            result = rollback_test.run(self._live_metrics)
        except (BadBundle, BadData) as error:
            self._print_once(str(error))
            return None, None
        for question, loss in result.losses.items():
            metrics.GAIN_LOST.labels(question).set(loss.gain_lost)
        return result, self._roll_back_if_worse(result, parent)

    def _load_rollback_test(self, version: str, parent: str) -> RollbackTest:
        """The judge of this version, which has the parent's network in memory."""
        if self._rollback_test is None or self._rollback_test.version != version:
            network = read_checkpoint(checkpoint_path(self._bundles, parent)).build_network()
            alpha_spending = AlphaSpending(bundles=self._bundles, version=version, rows_min=self._config.rows_min)
            self._rollback_test = RollbackTest(network=network, alpha_spending=alpha_spending, config=self._config)
            metrics.GAIN_LOST.clear()
        return self._rollback_test

    def _roll_back_if_worse(self, result: RollbackTestResult, parent: str) -> Withdrawal | None:
        """Take the bundle back where there are reasons to."""
        if not result.reasons:
            return None
        if not self._config.rollback:
            print_lines(
                f"Bundle {result.version} is worse than its parent and stays, as `watch.rollback` says.",
                *result.reasons,
            )
            return None
        try:
            return self._report_rollback(withdraw(self._bundles, result.version, parent, result.reasons))
        except BadBundle as error:
            print_lines(
                f"Bundle {result.version} is worse than its parent and cannot be taken back. {error}", *result.reasons
            )
            return None

    def _report_rollback(self, withdrawal: Withdrawal | None) -> Withdrawal | None:
        if withdrawal is not None:
            metrics.ROLLBACKS.inc()
            print_lines(
                f"ROLLBACK: bundle {withdrawal.version} is taken back, {withdrawal.to} serves again.",
                *withdrawal.reasons,
            )
        return withdrawal

    def _print_once(self, sentence: str) -> None:
        """Say what stands in the way, not at every look."""
        if sentence != self._last_message:
            print_lines(sentence)
        self._last_message = sentence


def to_json(report: MonitorReport) -> dict[str, Any]:
    """A look as JSON has it."""
    return {
        "figures": report.figures,
        "alarms": [
            {"kind": entry.kind, "column": entry.column, "p": entry.p, "ts_ms": entry.ts_ms} for entry in report.alarms
        ],
        "lost": {question: entry.gain_lost for question, entry in report.test_result.losses.items()}
        if report.test_result
        else {},
        "withdrawn": report.withdrawal.version if report.withdrawal else None,
    }
