"""The protocol: one batch from poll to merge, in the one order that recovery understands.

    poll -> read -> score -> claim -> publish -> commit -> merge -> cache

A death before the commit repeats the batch with the same decisions, since they were claimed; a death after it folds the
batch again and answers nothing. Whatever a server's absence interrupts is tried again with the batch in hand.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from contract.erasures import NO_ERASURES
from contract.errors import BadProfile, ShopstreamError, StaleState
from contract.memory import Memory, fold
from contract.settings import Settings
from contract.touches import Touches, columns
from worker import metrics
from worker.answers import Answers, Scorer
from worker.batch import Batch, count, open_records
from worker.challenger import Challenger
from worker.doors import Doors, State
from worker.flood import Flood
from worker.intake import NOWHERE, Place, Record
from worker.lanes import Lane
from worker.owed import Owed
from worker.pace import Pace
from worker.patience import Patience
from worker.publisher import Outgoing
from worker.recovery import Recovery
from worker.runtime import Model
from worker.step import StepMark
from worker.stopwatch import STOPWATCH

log = logging.getLogger(__name__)


class Dropped(ShopstreamError):
    """A partition of the batch in hand went to another member while a server was waited for; the batch goes with it."""


class Protocol:
    """Moves batches from the intake to the publisher and the state; nothing else decides what happens when."""

    def __init__(
        self,
        *,
        settings: Settings,
        lane: Lane,
        scorer: Scorer,
        doors: Doors,
        state: State,
        recovery: Recovery,
        patience: Patience,
        step: StepMark,
    ) -> None:
        self._settings, self._lane, self._scorer, self._state = settings, lane, scorer, state
        self._intake, self._publisher = doors.intake, doors.publisher
        self._recovery, self._positions = recovery, recovery.positions
        self._erasures = recovery.forgetting.erasures if recovery.forgetting else NO_ERASURES
        self._confirmed = {settings.topics.of(kind) for kind in lane.confirms}
        self._patience, self._mark = patience, step
        self._kinds = settings.topics.kinds()
        self._owed = Owed(positions=self._positions, erasures=self._erasures, kinds=self._kinds)
        self._in_hand: set[Place] = set()
        self._dropped = self._rebalancing = False
        self._behind: StaleState | None = None  # partitions came that can only be begun with all others
        self._flood = Flood(share_max=settings.worker.dead_letter_share_max, window=settings.worker.dead_letter_window)
        self._pace = Pace(batch_max=settings.worker.batch_max, latency_ms=settings.worker.latency_ms)
        self._model_version = ""
        patience.meanwhile = self._stay_member

    def serve(self, model: Model | None, challenger: Challenger | None = None) -> None:
        """Answer with this line-up from the next batch on; no batch sees two, and so no user two models."""
        self._scorer.serve(model, challenger)
        self._model_version = model.version if model else ""

    def reading(self) -> tuple[dict[Place, int], dict[Place, int]]:
        """How far each partition is answered, and where it ends, as far as this member knows.

        A log that a transaction has written ends in a marker, which has an offset and is never read.
        """
        ends = {place: end for place, end in self._intake.ends().items() if place.topic not in self._confirmed}
        at_end = {place: end for place, end in ends.items() if place in self._intake.ended}
        return self._positions.committed | at_end, ends

    def close(self) -> None:
        """Leave the group, every bucket brought up; what is not committed will be read again."""
        self._intake.close()
        self._publisher.close()

    def assigned(self, places: list[Place]) -> dict[Place, int]:
        """Where to start in new partitions; waits until Kafka and Redis have told."""
        if not places:  # how a rebalance ends for who only gave some up; who holds a batch drops it now, not much later
            return {}
        self._rebalancing = True
        try:
            with self._timed("recover"):
                return self._patience.insist("kafka and redis", lambda: self._recovery.begin(places, self._intake))
        except StaleState as error:
            self._behind = error
            return dict.fromkeys(places, NOWHERE)  # the next step begins anew with all that are held
        finally:
            self._rebalancing = False

    def revoked(self, places: list[Place]) -> None:
        """Let partitions go: bring every bucket up, once, for whoever comes next; a batch in hand is dropped."""
        self._dropped = self._dropped or bool(self._in_hand & set(places))
        try:
            if not self._in_hand:
                self.advance()
        except ShopstreamError as error:
            log.warning("Partitions leave before their buckets were brought up; the next owner folds more: %s", error)
        self._positions.forget(places)

    def step(self, now_ms: Callable[[], int]) -> int:
        """Answer one batch, then remember it; returns the number of records that were read."""
        self._mark("idle")
        batch = Batch()
        try:
            with STOPWATCH("poll"):
                records = self._poll()
            began_s = time.monotonic()
            if self._behind:
                raise self._behind
            lane = self._lane
            with STOPWATCH("decode"):
                batch = open_records(records, self._kinds, self._positions.sources, lane.watches, lane.inspects)
            self._in_hand, self._dropped = set(batch.ends), False
            self._work(batch, now_ms)
            self._pace.note(len(batch), (time.monotonic() - began_s) * 1000)
            STOPWATCH.count(len(batch))
        except (StaleState, Dropped) as error:
            self.recover(error)
        finally:
            self._in_hand = set()
        return len(batch)

    def _poll(self) -> list[Record]:
        """The next records, but for those that are read by assignment and have only their positions here."""
        records = self._intake.poll(self._pace.records_max, self._settings.worker.wait_ms)
        return [record for record in records if record.place.topic not in self._confirmed]

    def recover(self, reason: Exception) -> None:
        """Go back to what Redis has; costs folding again what is there already, and never an answer."""
        log.warning("Going back to what Redis has: %s", reason)
        metrics.RECOVERIES.labels(type(reason).__name__).inc()
        self._in_hand, self._dropped, self._behind = set(), False, None  # what is given up need not be noticed as gone
        with self._timed("recover"):
            self._publisher.abandon()
            self._patience.insist("kafka and redis", self._go_back)

    def _go_back(self) -> None:
        """One attempt; partitions may come and go between two of them, and not within one."""
        self._intake.seek(self._recovery.begin(set(self._intake.places), self._intake))

    def advance(self) -> None:
        """Bring the buckets that no batch touched up to what is folded; one attempt.

        Raises `StaleState` if Redis forgot something, also where nothing is to be written: an idle worker notices too.
        """
        self._positions.check_merged(self._state.profiles.merged(self._positions.sources.values()))
        after = self._positions.advance()
        if after:
            self._state.profiles.merge({}, self._positions.merged, after)
            self._positions.note_merged(after)

    def say(self, records: Sequence[Outgoing], ends: Mapping[Place, int]) -> None:
        """Publish what belongs to no batch, together with how far that is, however long Kafka makes it wait.

        Raises `Dropped` if the partitions have gone meanwhile: they are another's to speak for.
        """
        self._in_hand, self._dropped = set(ends), False
        try:
            self._publisher.publish(records, ends, self._intake)
            self._positions.note_committed(ends)
        finally:
            self._in_hand = set()

    def _work(self, batch: Batch, now_ms: Callable[[], int]) -> None:
        self._positions.check_order(batch.begins)
        check_topics = self._recovery.ask_for_changes(batch.begins)
        self._owed.trim(batch)
        watched = self._scorer.watched(batch, now_ms())
        if not batch and not watched:
            return
        metrics.BATCH.observe(len(batch))
        with self._timed("read"):
            touches = columns(batch.arrivals, watched, self._erasures)
            memory = self._patience.insist("redis", lambda: self._remember(touches))
        with self._timed("score"):
            answers = self._scorer.answer(batch, self._owed.rows(batch), memory, now_ms())
        with self._timed("claim"):
            if answers.decisions:
                answers.decisions = self._patience.insist("redis", lambda: self._state.claims.claim(answers.decisions))
        self._patience.insist("kafka", check_topics)
        with self._timed("send"):
            outgoing = answers.outgoing(self._settings.topics)
            self._publisher.send(outgoing)
        with self._timed("refresh"):
            due = self._scorer.refresh(memory, now_ms())
            self._owed.withhold(due)
            outgoing += due.outgoing(self._settings.topics)
        answers.add(due)
        self._publish(batch, answers, outgoing)
        if passing := self._owed.passing(batch):  # before the merge: whoever dies here comes back to it
            self._patience.insist("redis", lambda: self._state.claims.forget_answered(passing))
        self._merge(batch, memory)
        with self._timed("cache"):
            lists, rankings = [made for made, _ in answers.lists], [made for made, _ in answers.rankings]
            self._patience.insist("redis", lambda: self._state.caches.write(lists, rankings))

    def _remember(self, touches: Touches) -> Memory:
        profiles = self._state.profiles
        try:
            with STOPWATCH("read profiles"):
                found = profiles.read(touches.entities)
            with STOPWATCH("read fold"):
                return fold(found, touches)
        except BadProfile as error:
            raise BadProfile(f"{error} {profiles.remedy(touches.entities)}") from error

    def _publish(self, batch: Batch, answers: Answers, outgoing: list[Outgoing]) -> None:
        """Steps 3 and 4: everything the batch makes us say is out, and its positions are committed."""
        with self._timed("publish"):
            ends = {p: at for p, at in batch.ends.items() if at > self._positions.committed.get(p, -1)}
            rejects = [*batch.rejects, *answers.rejects]
            outgoing += [reject.letter(self._settings.topics.dead_letters, self._model_version) for reject in rejects]
            if not outgoing and not ends:
                return
            self._publisher.publish(outgoing, ends, self._intake)
            self._positions.note_committed(ends)
        answers.count()
        count(rejects)
        self._flood.note(len(batch), len(rejects))

    def _merge(self, batch: Batch, memory: Memory) -> None:
        """Step 5: the slices of the batch, with the positions that they stand for."""
        with self._timed("merge"):
            with STOPWATCH("merge pack"):
                writes = memory.writes()
            after = self._positions.after(batch.ends, writes.buckets())
            if after:
                self._patience.insist(
                    "redis", lambda: self._state.profiles.merge(writes, self._positions.merged, after)
                )
            self._positions.note_merged(after)
            self._positions.note_folded({p: at for p, at in batch.ends.items() if p in self._positions.sources})

    def _stay_member(self) -> None:
        """While a server is waited for: keep the membership in the group, and notice if the batch in hand is gone."""
        if self._rebalancing:  # a rebalance is handled inside of a poll, which cannot be entered twice
            return
        self._intake.keep_alive()
        if self._dropped:
            raise Dropped("The partitions of the batch in hand should stay until it is merged. Found them moved.")

    @contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        self._mark(step)
        with metrics.STEP.labels(step).time(), STOPWATCH(step):
            yield
