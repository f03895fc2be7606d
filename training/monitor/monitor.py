"""The model monitor: evaluates served models on matured labels, detects drift, and rolls a worse bundle back.

It is independent of the workers, the joiner and the learner. Its inputs are two topics and the bundles folder. The only
thing it changes is the pointer, from a bundle that is worse to that bundle's parent.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from contract.bundle import current_version, read_manifest
from contract.errors import BadBundle, BadData
from contract.features.declaration import FeatureSet
from contract.messages import Example, ScoredRow, read_example, read_scored_row
from contract.profiles.erasures import NO_ERASURES, Erasures
from contract.settings.monitor import MonitorConfig
from contract.settings.reading import Settings
from contract.units import SECOND_MS
from model.checkpoint import checkpoint_path, read_checkpoint
from training.feedback.chunked_reader import RecordChunk
from training.feedback.decoding import decode_or_none
from training.monitor import metrics
from training.monitor.alpha_spending import AlphaSpending
from training.monitor.drift import Alarm, DriftDetector
from training.monitor.live_metrics import LiveMetrics
from training.monitor.rollback import Withdrawal, find_rollback_target, find_unfinished, finish_withdrawal, withdraw
from training.monitor.rollback_test import RollbackTest, RollbackTestResult
from training.monitor.time_merge import TimeMerge
from training.online.rejected_updates import is_frozen
from training.trainer.evaluation import Evaluation
from transport.records import Record, TopicPartition

log = logging.getLogger(__name__)
FUTURE_MS: Final = 5 * 60 * SECOND_MS  # a row dated later than that after the newest record would stop drift detection
Message = TypeVar("Message", Example, ScoredRow)


class RecordSource(Protocol):
    """A topic that is read in chunks; see `training.feedback.chunked_reader`."""

    def read(self, positions: Mapping[str, int]) -> RecordChunk:
        """The next records and the positions after them; raises `Unavailable`."""


@dataclass(frozen=True, slots=True)
class MonitorReport:
    """The result of one check. `figures`: by version; `withdrawal`: of the bundle that the check rolled back."""

    figures: dict[str, Evaluation] = field(default_factory=dict)
    alarms: Sequence[Alarm] = ()
    test_result: RollbackTestResult | None = None
    withdrawal: Withdrawal | None = None


class ModelMonitor:
    """Runs checks; positions and examples are kept in memory between them."""

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
        self._settings = settings
        self._features = features
        self._bundles = bundles
        self._config = config
        self._topics = {"scored": scored, "feedback": feedback}
        self._positions: dict[str, dict[str, int]] = {"scored": {}, "feedback": {}}
        self._live_metrics = LiveMetrics(tasks=settings.tasks, feedback=settings.feedback, config=config)
        self._drift_detector = DriftDetector(features=features, config=config, folder=bundles / "drift")
        self._merge = TimeMerge()
        self._alarms = list[Alarm]()
        self._rollback_test: RollbackTest | None = None
        self._last_message = ""
        self._erasures: Erasures = NO_ERASURES

    def erase(self, erasures: Erasures, has_new: bool) -> bool:
        """Remove erased people from all that is kept, and leave them out from now on; raises `BadBundle`.

        An `EraseFunction` of `training.erasure`.
        """
        self._erasures = erasures
        if has_new:
            self._live_metrics.erase(erasures)
            self._drift_detector.erase(erasures)
        return True

    def check(self) -> MonitorReport:
        """Read both topics to their ends, export metrics, and test the serving bundle. Raises `Unavailable`."""
        self._read_scored()
        self._read_feedback()
        self._live_metrics.evict_old()
        alarms, self._alarms = self._alarms, []
        thresholds = self._thresholds()
        figures = {
            version: self._live_metrics.evaluate(version, thresholds) for version in self._live_metrics.versions()
        }
        self._export_metrics(figures)
        test_result, withdrawal = self._test_serving()
        metrics.CHECKS.inc()
        non_empty = {version: evaluation for version, evaluation in figures.items() if evaluation}
        return MonitorReport(non_empty, alarms, test_result, withdrawal)

    def _read_chunks(self, name: str) -> Iterator[RecordChunk]:
        """A topic's records up to its present end; a chunk counts as read when the next one is asked for."""
        is_last = False
        while not is_last:
            chunk = self._topics[name].read(self._positions[name])
            yield chunk
            self._positions[name] = chunk.positions
            is_last = chunk.is_last
            metrics.RECORDS.labels(name).inc(len(chunk.records))

    def _read_feedback(self) -> None:
        for chunk in self._read_chunks("feedback"):
            for record in chunk.records:
                if (example := read_or_count(read_example, record)) is not None:
                    self._observe_example(example)

    def _read_scored(self) -> None:
        """Pass the scored rows to drift detection in the order of their times, whatever partitions they are in."""
        for chunk in self._read_chunks("scored"):
            newest_ms = max((record.kafka_ms for record in chunk.records), default=0)
            latest_ms = dict[TopicPartition, int]()
            for record in chunk.records:
                if (row := read_or_count(read_scored_row, record)) is None:
                    continue
                if newest_ms and row.ts_ms > newest_ms + FUTURE_MS:
                    metrics.LEFT_OUT.labels("from the future").inc()
                    continue
                self._merge.add(row)
                latest_ms[record.topic_partition] = max(row.ts_ms, latest_ms.get(record.topic_partition, 0))
            for row in self._merge.release({} if chunk.is_last else latest_ms):
                self._observe_scored(row)

    def _observe_example(self, example: Example) -> None:
        if self._erasures.covers(example.user_id, example.ts_ms):
            metrics.LEFT_OUT.labels("of erased people").inc()
        else:
            self._live_metrics.observe(example)

    def _observe_scored(self, row: ScoredRow) -> None:
        if self._erasures.covers(row.user_id, row.ts_ms):
            metrics.LEFT_OUT.labels("of erased people").inc()
            return
        if row.features != self._features.digest:
            metrics.LEFT_OUT.labels("of other features").inc()
            return
        if self._drift_detector.has_compared(row):
            metrics.LEFT_OUT.labels("older than the last block").inc()
            return
        comparison = self._drift_detector.observe(row)
        if comparison is None:
            return
        metrics.DRIFT_BLOCKS.labels(comparison.kind).inc()
        self._alarms += comparison.alarms
        for alarm in comparison.alarms:
            metrics.DRIFT_ALARMS.labels(alarm.kind, alarm.column).inc()
            log.warning(
                "Drift: the distribution of `%s` in %s rows changed by %s (p = %.1g).",
                alarm.column,
                alarm.kind,
                datetime.fromtimestamp(alarm.ts_ms / SECOND_MS, UTC).isoformat(timespec="seconds"),
                alarm.p,
            )

    def _thresholds(self) -> dict[str, dict[str, float]]:
        """The thresholds that workers apply: those of the settings, and of the serving bundle for other tasks."""
        try:
            version = current_version(self._bundles)
            bundle_thresholds = read_manifest(self._bundles, version).thresholds if version else {}
        except BadBundle:
            bundle_thresholds = {}
        return {**bundle_thresholds, **self._settings.thresholds}

    def _export_metrics(self, figures: dict[str, Evaluation]) -> None:
        metrics.set_live_metrics(figures)
        metrics.FEEDBACK_TIME.set(self._live_metrics.now_ms / 1_000)
        metrics.LEARNER_FROZEN.set(is_frozen(self._bundles))
        for graph, share in self._live_metrics.user_shares().items():
            metrics.USER_SHARE.labels(graph).set(share)

    def _test_serving(self) -> tuple[RollbackTestResult | None, Withdrawal | None]:
        """Compare the serving bundle with its parent, and roll it back if it is worse; obstacles are logged."""
        try:
            version = current_version(self._bundles)
            if version is None:
                self._log_once(logging.INFO, f"{self._bundles} has no serving bundle yet: there is none to monitor.")
                return None, None
            if withdrawal := find_unfinished(self._bundles, version):
                return None, self._report_rollback(finish_withdrawal(self._bundles, withdrawal))
            parent = find_rollback_target(self._bundles, version)
            result = self._load_rollback_test(version, parent).run(self._live_metrics)
        except (BadBundle, BadData) as error:
            self._log_once(logging.WARNING, str(error))
            return None, None
        for question, loss in result.losses.items():
            metrics.GAIN_LOST.labels(question).set(loss.gain_lost)
        return result, self._roll_back_if_worse(result, parent)

    def _load_rollback_test(self, version: str, parent: str) -> RollbackTest:
        """The test of this version, loaded with the parent's network when the version changes."""
        if self._rollback_test is None or self._rollback_test.version != version:
            network = read_checkpoint(checkpoint_path(self._bundles, parent)).build_network()
            alpha_spending = AlphaSpending(bundles=self._bundles, version=version, rows_min=self._config.rows_min)
            self._rollback_test = RollbackTest(network=network, alpha_spending=alpha_spending, config=self._config)
            metrics.GAIN_LOST.clear()
        return self._rollback_test

    def _roll_back_if_worse(self, result: RollbackTestResult, parent: str) -> Withdrawal | None:
        if not result.reasons:
            return None
        reasons = " ".join(result.reasons)
        if not self._config.rollback:
            log.warning(
                "Bundle %s is worse than its parent and stays, as `watch.rollback` is off. %s", result.version, reasons
            )
            return None
        try:
            return self._report_rollback(withdraw(self._bundles, result.version, parent, result.reasons))
        except BadBundle as error:
            log.error(
                "Bundle %s is worse than its parent and cannot be rolled back. %s %s", result.version, error, reasons
            )
            return None

    def _report_rollback(self, withdrawal: Withdrawal | None) -> Withdrawal | None:
        if withdrawal is not None:
            metrics.ROLLBACKS.inc()
            log.error(
                "ROLLBACK: bundle %s is withdrawn, %s serves again. %s",
                withdrawal.version,
                withdrawal.to,
                " ".join(withdrawal.reasons),
            )
        return withdrawal

    def _log_once(self, level: int, message: str) -> None:
        """Log a message, unless the last check logged the same."""
        if message != self._last_message:
            log.log(level, message)
        self._last_message = message


def read_or_count(decode: Callable[[bytes], Message], record: Record) -> Message | None:
    """The message of a record, or None for an unreadable one, which is counted."""
    if (message := decode_or_none(decode, record.value)) is None:
        metrics.LEFT_OUT.labels("unreadable").inc()
    return message


def to_json(report: MonitorReport) -> dict[str, Any]:
    """The report as the command prints it."""
    losses = report.test_result.losses if report.test_result else {}
    return {
        "figures": report.figures,
        "alarms": [
            {"kind": alarm.kind, "column": alarm.column, "p": alarm.p, "ts_ms": alarm.ts_ms} for alarm in report.alarms
        ],
        "lost": {question: loss.gain_lost for question, loss in losses.items()},
        "withdrawn": report.withdrawal.version if report.withdrawal else None,
    }
