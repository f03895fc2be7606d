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
from contract.features import FeatureSet
from contract.rows import read_example, read_scored
from contract.settings import Settings
from model.checkpoint import path_of, read_checkpoint
from training import telemetry
from training.drift import Alarm, Drift
from training.evaluation import Evaluation
from training.live import Live
from training.looks import Looks
from training.portions import Portion
from training.refused import is_frozen
from training.report import say
from training.rollback import Withdrawn, finish, parent_of, unfinished, withdraw
from training.verdict import Judge, Verdict
from training.watching import Watching


class Topic(Protocol):
    """What gives records in portions; see `training.portions`."""

    def read(self, positions: Mapping[str, int]) -> Portion:
        """What comes next, and where to go on; raises `Unavailable`."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of one look at everything; `withdrawn`: the bundle that was taken back by it."""

    figures: dict[str, Evaluation] = field(default_factory=dict)
    alarms: Sequence[Alarm] = ()
    verdict: Verdict | None = None
    withdrawn: Withdrawn | None = None


class Watcher:
    """Looks as often as it is asked to; what it has read and what it keeps in mind stay in memory between looks."""

    def __init__(
        self,
        *,
        settings: Settings,
        features: FeatureSet,
        bundles: Path,
        watching: Watching,
        scored: Topic,
        feedback: Topic,
    ) -> None:
        self._settings, self._features, self._bundles, self._watching = settings, features, bundles, watching
        self._topics = {"scored": scored, "feedback": feedback}
        self._positions: dict[str, dict[str, int]] = {"scored": {}, "feedback": {}}
        self._live = Live(tasks=settings.tasks, feedback=settings.feedback, watching=watching)
        self._drift = Drift(features=features, watching=watching, folder=bundles / "drift")
        self._alarms = list[Alarm]()
        self._judge: Judge | None = None
        self._told = ""

    def look(self) -> Seen:
        """Read both topics to their ends, show the figures, and judge the bundle that serves. Raises `Unavailable`."""
        self._read("scored", self._take_scored)
        self._read("feedback", lambda value: self._live.take(read_example(value)))
        self._live.forget()
        alarms, self._alarms = self._alarms, []
        thresholds, versions = self._thresholds(), self._live.versions()
        figures = {version: self._live.figures(version, thresholds) for version in versions}
        self._show(figures)
        verdict, taken = self._judge_present()
        telemetry.LOOKS.inc()
        return Seen({version: of for version, of in figures.items() if of}, alarms, verdict, taken)

    def _read(self, name: str, take: Callable[[bytes], None]) -> None:
        """Take a topic's records to its present end, a portion at a time; one that cannot be used is counted."""
        topic = self._topics[name]
        is_last = False
        while not is_last:
            portion = topic.read(self._positions[name])
            for record in portion.records:
                try:
                    take(record.value)
                except msgspec.MsgspecError:
                    telemetry.LEFT_OUT.labels("unreadable").inc()
            self._positions[name], is_last = portion.positions, portion.is_last
            telemetry.READ.labels(name).inc(len(portion.records))

    def _take_scored(self, value: bytes) -> None:
        row = read_scored(value)
        if row.features != self._features.digest:
            telemetry.LEFT_OUT.labels("of other features").inc()
            return
        compared = self._drift.take(row)
        if compared is None:
            return
        telemetry.BLOCKS.labels(compared.kind).inc()
        self._alarms += compared.alarms
        for alarm in compared.alarms:
            telemetry.ALARMS.labels(alarm.kind, alarm.column).inc()
            say(f"Drift: `{alarm.column}` of {alarm.kind} rows is not what it was (p = {alarm.p:.1g}).")

    def _thresholds(self) -> dict[str, dict[str, float]]:
        """What the shop compares probabilities with, as a worker takes them."""
        try:
            version = current_version(self._bundles)
            of_bundle = read_manifest(self._bundles, version).thresholds if version else {}
        except BadBundle:
            of_bundle = {}
        return {**of_bundle, **self._settings.thresholds}

    def _show(self, figures: dict[str, Evaluation]) -> None:
        telemetry.show_figures(figures)
        telemetry.TIME.set(self._live.now_ms / 1_000)
        telemetry.FROZEN.set(is_frozen(self._bundles))
        for graph, share in self._live.shares().items():
            telemetry.SHARE.labels(graph).set(share)

    def _judge_present(self) -> tuple[Verdict | None, Withdrawn | None]:
        """Compare the bundle that serves with its parent, and go back where it is worse. What hinders it is said."""
        try:
            version = current_version(self._bundles)
            if version is None:
                self._say_once(f"{self._bundles} has no present bundle yet: there is none to watch.")
                return None, None
            if decision := unfinished(self._bundles, version):
                return None, self._tell(finish(self._bundles, decision))
            parent = parent_of(self._bundles, version)
            judge = self._judge_of(version, parent)
            verdict = judge.look(self._live)
        except (BadBundle, BadData) as error:
            self._say_once(str(error))
            return None, None
        for question, one in verdict.excess.items():
            telemetry.LOST.labels(question).set(one.lost)
        return verdict, self._act(verdict, parent)

    def _judge_of(self, version: str, parent: str) -> Judge:
        """The judge of this version, which has the parent's network in memory."""
        if self._judge is None or self._judge.version != version:
            network = read_checkpoint(path_of(self._bundles, parent)).network()
            looks = Looks(bundles=self._bundles, version=version, rows_min=self._watching.rows_min)
            self._judge = Judge(network=network, looks=looks, watching=self._watching)
            telemetry.LOST.clear()
        return self._judge

    def _act(self, verdict: Verdict, parent: str) -> Withdrawn | None:
        """Take the bundle back where there are reasons to."""
        if not verdict.reasons:
            return None
        if not self._watching.rollback:
            say(
                f"Bundle {verdict.version} is worse than its parent and stays, as `watch.rollback` says.",
                *verdict.reasons,
            )
            return None
        try:
            return self._tell(withdraw(self._bundles, verdict.version, parent, verdict.reasons))
        except BadBundle as error:
            say(
                f"Bundle {verdict.version} is worse than its parent and cannot be taken back. {error}", *verdict.reasons
            )
            return None

    def _tell(self, decision: Withdrawn | None) -> Withdrawn | None:
        if decision is not None:
            telemetry.ROLLBACKS.inc()
            say(f"ROLLBACK: bundle {decision.version} is taken back, {decision.to} serves again.", *decision.reasons)
        return decision

    def _say_once(self, sentence: str) -> None:
        """Say what stands in the way, not at every look."""
        if sentence != self._told:
            say(sentence)
        self._told = sentence


def told(seen: Seen) -> dict[str, Any]:
    """A look as JSON has it."""
    return {
        "figures": seen.figures,
        "alarms": [{"kind": one.kind, "column": one.column, "p": one.p, "ts_ms": one.ts_ms} for one in seen.alarms],
        "lost": {question: one.lost for question, one in seen.verdict.excess.items()} if seen.verdict else {},
        "withdrawn": seen.withdrawn.version if seen.withdrawn else None,
    }
