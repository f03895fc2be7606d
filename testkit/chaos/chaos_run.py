"""A chaos run: rounds of seeded faults on running processes; after each, all has to catch up and is audited."""

import random
import shutil
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException

from contract.errors import Unavailable
from contract.units import HOUR_MS
from devservers.apache_kafka import ApacheKafka
from devservers.redis_server import RedisServer
from testkit.chaos.diagnosis import describe_groups, describe_processes, describe_transactions
from testkit.chaos.evidence import keep_evidence
from testkit.chaos.fault_schedule import FaultDeck, RoundSchedule
from testkit.chaos.fleet import Fleet
from testkit.chaos.outcome import ChaosOutcome, ChaosPlan
from testkit.chaos.patience import Patience
from testkit.chaos.promise_audit import Findings, PromiseAudit
from testkit.chaos.scene import Scene
from testkit.chaos.shop_traffic import LANES, ShopTraffic
from testkit.environment.run_environment import RunEnvironment

TICK_S: Final = 0.002
LAGGING_POLL_S: Final = 0.5
SENTENCES_MAX: Final = 10
SESSION_MS: Final = 6_000
WINDOW_MS: Final = 2 * HOUR_MS  # of labels, in event time: no stall is longer than it
TAIL_S: Final = 4.0
WORKER_VARIABLES: Final = {
    "SHOPSTREAM_KAFKA__SESSION_TIMEOUT_MS": str(SESSION_MS),
    "SHOPSTREAM_FEEDBACK__FRAUD_WINDOW_S": str(WINDOW_MS // 1000),
    "SHOPSTREAM_FEEDBACK__GRACE_S": "900",
    "SHOPSTREAM_FEEDBACK__IDLE_MS": "5000",
}


class ChaosRun:
    """Rounds on one environment after the other until the time is over."""

    def __init__(self, *, plan: ChaosPlan, report: Callable[[str], None], folder: Path) -> None:
        self.plan, self.report, self.folder = plan, report, folder
        self.outcome = ChaosOutcome()
        self._rng = random.Random(f"chaos {plan.seed}")
        self._deck = FaultDeck(plan.faults, self._rng)
        self._begin_s = time.monotonic()

    def run(self) -> ChaosOutcome:
        """Play rounds; a round that fails is described, and the next one has a new environment."""
        while self._has_time():
            self.outcome.environments += 1
            with ExitStack() as stack:
                folder = Path(tempfile.mkdtemp(dir=self.folder, prefix=f"environment-{self.outcome.environments}-"))
                is_ok = self._play_or_report(stack, folder)
            if is_ok:  # the logs of a failure are kept
                shutil.rmtree(folder)
        self.outcome.seconds = round(time.monotonic() - self._begin_s, 1)
        return self.outcome

    def _play_or_report(self, stack: ExitStack, folder: Path) -> bool:
        """Play one environment; what breaks it off is reported with its traceback, and the run goes on."""
        try:
            return self._play(self._open_scene(stack, folder))
        except Exception:
            self.outcome.errors += 1
            self.report(f"FAILED, seed {self.plan.seed}: the environment broke off.\n{traceback.format_exc()}")
            return False

    def _has_time(self) -> bool:
        spent_s = time.monotonic() - self._begin_s
        return spent_s < self.plan.minutes * 60 and self.outcome.runs < self.plan.rounds_max

    def _open_scene(self, stack: ExitStack, folder: Path) -> Scene:
        plan = self.plan
        kafka, redis = stack.enter_context(ApacheKafka()), stack.enter_context(RedisServer())
        environment = RunEnvironment(kafka=kafka, redis=redis, folder=folder)
        environment.create_topics()
        seed = self._rng.randrange(2**32)
        traffic = ShopTraffic(environment=environment, seed=seed, events_per_s=plan.events_per_s)
        traffic.fill_catalogue()
        fleet = Fleet(
            environment=environment,
            variables=WORKER_VARIABLES,
            workers_per_lane=plan.workers_per_lane,
            joiners=plan.joiners,
        )
        stack.callback(fleet.close)
        return Scene(
            environment=environment,
            kafka=kafka,
            fleet=fleet,
            traffic=traffic,
            rng=random.Random(seed),
            report=self.report,
        )

    def _play(self, scene: Scene) -> bool:
        """The rounds of one environment; ends early after one that fails.

        Returns whether none did and no process ended by itself: the logs of others are kept.
        """
        audit, is_ok = PromiseAudit(scene), True
        for number in range(self.plan.rounds_per_environment):
            if not self._has_time():
                break
            is_last = number == self.plan.rounds_per_environment - 1
            names = self._deck.deal(self.plan.faults_per_round)
            self.report(f"seed {self.plan.seed}, run {self.outcome.runs + 1}: {', '.join(names)}")
            is_ok = self._play_round(scene, audit, names, is_last=is_last)
            self.outcome.runs += 1
            if not is_ok:
                break
        self.outcome.events += audit.events
        self.outcome.duplicates += sum(audit.duplicates.values())
        self.outcome.faults = dict(sorted((Counter(self.outcome.faults) + scene.counts).items()))
        self.outcome.own_exits += len(scene.fleet.own_exits)
        self.outcome.worst_shutdown_s = round(max(self.outcome.worst_shutdown_s, scene.fleet.worst_shutdown_s), 1)
        return is_ok and not scene.fleet.own_exits

    def _play_round(self, scene: Scene, audit: PromiseAudit, names: Sequence[str], *, is_last: bool) -> bool:
        """One round: faults, healing, catching up, audit; returns whether every promise was kept."""
        exits = len(scene.fleet.own_exits)
        schedule = RoundSchedule(scene, names, seconds=0.8 * self.plan.round_s)
        try:
            schedule.begin_drained()
            self._run_faults(scene, schedule)
        except Exception as error:
            return self._fail(scene, f"a fault broke off: {error!r}")
        finally:
            schedule.heal()
            heal(scene)
        for own in scene.fleet.own_exits[exits:]:
            self.report(f"{own.name} ended by itself with {own.status}:")
            for line in own.tail.strip().splitlines():
                self.report(line)
        try:
            lagging = self._catch_up(scene, audit)
            if is_last and not lagging:
                lagging = self._pass_windows(scene, audit)
            if lagging:
                self.outcome.not_caught_up += 1
                self.outcome.lost += self._count_lost(audit)
                sentence = f"not caught up: {len(lagging)} sentences, {lagging[:SENTENCES_MAX]}"
                return self._fail(scene, sentence, lagging)
            findings = self._find_broken(scene, audit)
        except (Unavailable, RuntimeError, KafkaException) as error:
            return self._fail(scene, f"the audit broke off: {error!r}")
        self.outcome.add(findings)
        broken = [(name, sentences) for name, sentences in findings.items() if sentences]
        self.report(f"{audit.events} events, duplicates {audit.duplicates}; broken: {[name for name, _ in broken]}")
        for name, sentences in broken:
            for sentence in sentences[:SENTENCES_MAX]:
                self.report(f"{name}: {sentence}")
        if broken:
            self._describe(scene, "a promise is broken", [text for _, sentences in broken for text in sentences])
        return not broken

    def _count_lost(self, audit: PromiseAudit) -> int:
        """What is missing though every group has committed to the end, and everything is merged: it does not come."""
        return 0 if any(audit.find_behind()) else len(audit.find_lost())

    def _find_broken(self, scene: Scene, audit: PromiseAudit) -> Findings:
        """What is broken; looks again if records came during the look, which Redis may include."""
        findings = audit.find_broken()
        while findings.mismatches and audit.collect():
            self._catch_up(scene, audit)
            findings = audit.find_broken()
        return findings

    def _run_faults(self, scene: Scene, schedule: RoundSchedule) -> None:
        scene.traffic.pause()
        end_s = time.monotonic() + self.plan.round_s
        while time.monotonic() < end_s:
            scene.fleet.tick()
            scene.traffic.tick()
            schedule.tick()
            time.sleep(TICK_S)

    def _pass_windows(self, scene: Scene, audit: PromiseAudit) -> list[str]:
        """Move event time behind every window, with events on every partition: each order should have a label then."""
        before_ms = scene.traffic.clock.now_ms()
        scene.traffic.clock.step(WINDOW_MS + HOUR_MS)
        scene.traffic.pause()
        end_s = time.monotonic() + TAIL_S
        while time.monotonic() < end_s:
            scene.fleet.tick()
            scene.traffic.tick()
            time.sleep(TICK_S)
        return self._catch_up(scene, audit, labelled_before_ms=before_ms)

    def _catch_up(self, scene: Scene, audit: PromiseAudit, *, labelled_before_ms: int = 0) -> list[str]:
        """Wait until nothing lags; returns what still does once nothing has advanced for `catch_up_s`."""
        scene.traffic.flush()
        patience = Patience(still_s=self.plan.catch_up_s)
        while True:
            scene.fleet.tick()
            try:
                lagging = list(audit.find_lagging(labelled_before_ms=labelled_before_ms))
            except (Unavailable, KafkaException) as error:
                lagging = [str(error)]
            spent_s = patience.spent_s
            if not lagging or patience.is_over((*lagging, *scene.fleet.read_progress())):
                break
            wait_ticking(scene, LAGGING_POLL_S)
        self.outcome.worst_recovery_s = round(max(self.outcome.worst_recovery_s, spent_s), 1)
        self.report(f"caught up after {spent_s:.1f} s" if not lagging else f"lagging after {spent_s:.1f} s")
        return lagging

    def _fail(self, scene: Scene, sentence: str, lagging: Sequence[str] = ()) -> bool:
        if not lagging:
            self.outcome.errors += 1
        self._describe(scene, sentence, lagging)
        return False

    def _describe(self, scene: Scene, sentence: str, details: Sequence[str]) -> None:
        self.report(f"FAILED, seed {self.plan.seed}, run {self.outcome.runs + 1}: {sentence}")
        self.report(f"what the records say is kept in {keep_evidence(scene, details)}")
        environment = scene.environment
        groups = [environment.group_id(lane) for lane in (*LANES, "feedback")]
        for lines in (
            describe_groups(scene.kafka.bootstrap, groups),
            describe_transactions(scene.kafka.bootstrap),
            describe_processes(scene.fleet),
        ):
            for line in lines:
                self.report(line)


def heal(scene: Scene) -> None:
    """Every server answers, every process runs, additional workers leave."""
    scene.kafka.resume()
    scene.kafka.start()
    scene.environment.redis.resume()
    scene.environment.redis.start()
    for process in list(scene.fleet.processes):
        process.thaw()
        process.is_borrowed = False
        process.start_at_s = 0.0
        if not process.is_wanted:
            scene.fleet.remove(process)


def wait_ticking(scene: Scene, seconds: float) -> None:
    """Wait while processes that end are started again."""
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        scene.fleet.tick()
        time.sleep(TICK_S)
