"""Joining as a loop: records in, examples and judgements out, and positions that lag behind what still waits.

After a crash everything open is read again. What was published is read back first and not published twice; with
transactions that is exact, since what was said and how far it was read are committed as one.
The joined topics may be read at different speeds; partitions that get ahead are held.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import msgspec

from contract.errors import BadEvent, ShopstreamError
from contract.events import Event, clamp, decode
from contract.joining.output import Counts, Output
from contract.profiles import JUDGED_TASKS
from contract.rows import Scored, read_scored, to_json, to_msgpack
from contract.settings import Settings
from worker import metrics
from worker.intake import Held, Intake, Place, Record
from worker.legacy import Legacy
from worker.patience import Patience
from worker.publisher import Outgoing, Publisher
from worker.quiet import Quiet
from worker.recall import Recall
from worker.said import Said
from worker.waiting import Waiting

log = logging.getLogger(__name__)
KINDS: Final = ("scored", "impressions", "clicks", "orders", "labels")


class Moved(ShopstreamError):
    """Partitions left while a batch was in hand: what waits is not whole any more, and joining begins anew."""


class Joining:
    """Moves batches from the intake through the joiner to the publisher. It listens to the intake's partitions."""

    def __init__(
        self,
        *,
        settings: Settings,
        intake: Intake,
        publisher: Publisher,
        patience: Patience,
        clock_s: Callable[[], float] = time.monotonic,
        recall: Callable[[Mapping[Place, Held]], Said] | None = None,
    ) -> None:
        """`recall`: what earlier lives have said of what is read from these positions on."""
        self._settings, self._clock_s = settings, clock_s
        self._recall = recall or Recall(settings=settings, meanwhile=self._stay_member).said
        self._kinds = {settings.topics.of(kind): kind for kind in KINDS}
        self._tasks = {*JUDGED_TASKS, *(task.name for task in settings.tasks)}
        self._intake, self._publisher, self._patience = intake, publisher, patience
        self._waiting = self._nothing_waiting()
        self._quiet = Quiet(after_s=settings.feedback.idle_ms / 1000)
        self._committed: dict[Place, int] = {}
        self._held: set[Place] = set()
        self._moved = self._in_hand = False
        self._legacy, self._recalled = self._left({}, Said(limit=1)), True
        patience.meanwhile = self._stay_member

    @property
    def topics(self) -> list[str]:
        return list(self._kinds)

    def assigned(self, places: list[Place]) -> Mapping[Place, int]:
        """New partitions start at their committed positions; what was joined without them is joined anew."""
        self._moved = self._moved or bool(self._waiting.read())
        self._waiting.follow(places)
        self._recalled = False
        return {}

    def revoked(self, places: list[Place]) -> None:
        """What waits lacks a part from now on, so everything that stays is read again."""
        self._moved = True

    def step(self) -> int:
        """Join one batch and publish what is ready; returns the number of records that were read."""
        worker = self._settings.worker
        records = self._intake.poll(worker.batch_max, worker.wait_ms)
        self._in_hand = True
        try:
            self._stay_whole()
            self._remember()
            self._publish(self._join(records))
        except Moved as moved:
            log.warning("Joining begins anew: %s", moved)
            self._in_hand = False  # nothing more can be taken away
            self._begin_anew()
        finally:
            self._in_hand = False
        return len(records)

    def reading(self) -> tuple[dict[Place, int], dict[Place, int]]:
        """How far each partition is read, and where it ends; of those that are not held."""
        ends = self._intake.ends()
        at_end = {place: end for place, end in ends.items() if place in self._intake.ended}
        return self._waiting.read() | at_end, {place: end for place, end in ends.items() if place not in self._held}

    def unready(self) -> str | None:
        """What is wrong if the partitions of this member cannot be joined: one user's records need one reader."""
        numbers = {topic: {p.partition for p in self._intake.places if p.topic == topic} for topic in self._kinds}
        if not self._intake.places:
            return "The joiner should have partitions to read. Found none so far."
        if len(set(map(frozenset, numbers.values()))) > 1:
            found = ", ".join(f"{topic}: {sorted(held)}" for topic, held in numbers.items())
            return f"The joiner should read the same partitions of each topic. Found {found}."
        return None

    def close(self) -> None:
        """Leave; what is not committed will be read again."""
        self._intake.close()
        self._publisher.close()

    def _join(self, records: list[Record]) -> Output:
        read = {record.place for record in records}
        quiet = self._quiet.note(self._intake.ended, read, self._clock_s())
        before = self._waiting.counts.copy()
        for record in records:
            kind = self._kinds[record.place.topic]
            metrics.EVENTS.labels(kind).inc()
            self._waiting.give(record.place, record.offset, open_record(kind, record))
        output = self._new(self._waiting.advance(quiet))
        self._hold(self._waiting.ahead())
        self._count(output, self._waiting.counts - before)
        return output

    def _new(self, output: Output) -> Output:
        """What no earlier life has said."""
        fresh, withheld = self._legacy.fresh(output)
        metrics.WITHHELD.inc(withheld)
        if fresh.orphans:
            self._show_orphans()
        return fresh

    def _publish(self, output: Output) -> None:
        topics = self._settings.topics
        outgoing = [Outgoing(topics.feedback, e.user_id, to_msgpack(e)) for e in output.examples]
        outgoing += [Outgoing(topics.judgements, j.user_id, to_json(j)) for j in output.judgements]
        positions = self._waiting.positions()
        if outgoing or positions != self._committed:
            self._publisher.publish(outgoing, positions, self._intake, self._legacy.leave(self._waiting, positions))
            self._committed = positions
            self._legacy.forget(positions)
        metrics.STREAM_TIME.set((self._waiting.now_ms or 0) / 1000)
        metrics.WAITS_SINCE.set((self._waiting.oldest_ms or 0) / 1000)

    def _count(self, output: Output, fates: Counts) -> None:
        for task, n in Counter(task for example in output.examples for task in example.labels).items():
            metrics.EXAMPLES.labels(task if task in self._tasks else "other").inc(n)
        metrics.JUDGEMENTS.inc(len(output.judgements))
        for (fate, task), n in fates.items():
            metrics.JOINED.labels(fate, task).inc(n)

    def _hold(self, places: set[Place]) -> None:
        if places != self._held:
            self._intake.hold(places)
            self._held = places

    def _nothing_waiting(self) -> Waiting:
        return Waiting(feedback=self._settings.feedback, tasks=self._settings.tasks)

    def _remember(self) -> None:
        """Read back what was said of what is read now, before anything is said; nobody else speaks from then on."""
        while not self._recalled:
            self._recalled = True  # partitions may come while others are asked about
            self._publisher.take_over()
            held = self._patience.insist("kafka", partial(self._intake.held, set(self._intake.places)))
            self._legacy = self._left(held, self._patience.insist("kafka", partial(self._recall, held)))
            self._waiting.resume(self._legacy.notes)
            metrics.UNREMEMBERED.set(self._legacy.forgotten)
            self._show_orphans()

    def _left(self, held: Mapping[Place, Held], said: Said) -> Legacy:
        return Legacy(feedback=self._settings.feedback, held=held, said=said)

    def _show_orphans(self) -> None:
        metrics.ORPHANS.clear()
        for task, n in self._legacy.orphans().items():
            metrics.ORPHANS.labels(task).set(n)

    def _begin_anew(self) -> None:
        """Forget what waits, and read again from the committed positions of the partitions that are left."""
        while self._moved:
            self._moved = self._recalled = False
            self._publisher.take_over()  # so that what was being committed is, or never will be
            self._waiting, self._committed = self._nothing_waiting(), {}
            self._hold(set())
            places = set(self._intake.places)
            self._waiting.follow(places)
            held = self._patience.insist("kafka", partial(self._intake.held, places))
            starts = {p: max(at.low, at.committed or 0) for p, at in held.items() if p in self._intake.places}
            self._patience.insist("kafka", partial(self._intake.seek, starts))

    def _stay_member(self) -> None:
        """While Kafka is waited for: keep the membership in the group, and notice if partitions left."""
        self._intake.keep_alive()
        self._stay_whole()

    def _stay_whole(self) -> None:
        if self._moved and self._in_hand:
            raise Moved("The partitions of the joiner should stay while it joins. Found some taken away.")


def open_record(kind: str, record: Record) -> Scored | Event | None:
    """The scored row or event of a record; None for what cannot be read, whose dead letter the score worker writes."""
    try:
        if kind == "scored":
            return read_scored(record.value or b"")
        event, moved = clamp(decode(kind, record.value), record.kafka_ms)
        metrics.CLAMPED.inc(moved)
        return event
    except (BadEvent, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        log.warning("Passing a record of %s/%d at %d by: %s", *record.place, record.offset, error)
        metrics.UNREADABLE.labels(kind).inc()
        return None
