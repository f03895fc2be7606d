"""The joiner's loop over an intake and a publisher that this process plays itself."""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import cast

import pytest

from contract.events import AHEAD_MS_MAX
from contract.rows import read_example, to_json, to_msgpack
from contract.settings import Settings
from tests.contract.joining.shop import FEEDBACK, at, click, label, row, shown
from worker import metrics
from worker.intake import Held, Intake, Place, Record
from worker.joining import Joining, open_record
from worker.notes import Note, read, write
from worker.patience import Patience
from worker.publisher import Outgoing, Publisher
from worker.said import Said, example_key

SCORED, SEEN, CLICKS, LABELS = (Place(f"shop.{kind}", 0) for kind in ("scored", "impressions", "clicks", "labels"))
LIST = to_msgpack(row("recommendation", "r", 0, ("a", "b")))


class PlayedIntake:
    """Gives the records that are put on a partition, from where it was told to read."""

    def __init__(self) -> None:
        self.logs: dict[Place, list[bytes | None]] = {place: [] for place in (SCORED, SEEN, CLICKS, LABELS)}
        self.next = dict.fromkeys(self.logs, 0)
        self.places = set(self.logs)
        self.ended: set[Place] = set()
        self.held_back: set[Place] = set()
        self.kept_alive = 0
        self.note = ""
        self.pace = 1_000  # records of one partition in one poll

    def put(self, place: Place, *values: bytes | None) -> None:
        self.logs[place] += values

    def poll(self, records_max: int, wait_ms: int) -> list[Record]:
        found = []
        for place in sorted(self.places - self.held_back):
            log = self.logs[place]
            start, self.next[place] = self.next[place], min(self.next[place] + self.pace, len(log))
            found += [Record(place, n, None, log[n], (), -1) for n in range(start, self.next[place])]
        self.ended = {place for place in self.places if self.next[place] == len(self.logs[place])}
        return found[:records_max]

    def hold(self, places: Iterable[Place]) -> None:
        self.held_back = set(places)

    def held(self, places: Iterable[Place]) -> dict[Place, Held]:
        return {place: Held(None, 0, len(self.logs[place]), self.note) for place in places}

    def seek(self, starts: Mapping[Place, int]) -> None:
        self.next.update(starts)

    def ends(self) -> dict[Place, int]:
        return {place: len(self.logs[place]) + 1 for place in self.places}  # each ends with a transaction's marker

    def keep_alive(self) -> None:
        self.kept_alive += 1


class PlayedPublisher:
    """Remembers what was published; `interrupt` happens once, before anything is."""

    def __init__(self) -> None:
        self.published: list[Outgoing] = []
        self.committed: dict[Place, int] = {}
        self.taken_over, self.begun = 0, False
        self.notes: dict[Place, str] = {}
        self.interrupt: Callable[[], None] = lambda: None

    def take_over(self) -> None:
        self.taken_over += 1
        self.begun = False

    def publish(
        self, records: Sequence[Outgoing], positions: Mapping[Place, int], intake: object, notes: Mapping[Place, str]
    ) -> None:
        interrupt, self.interrupt = self.interrupt, lambda: None
        self.begun = True
        interrupt()
        self.begun = False
        self.published += records
        self.committed.update(positions)
        self.notes.update(notes)


class Played:
    """A joiner and what it is connected to."""

    def __init__(self) -> None:
        self.intake, self.publisher = PlayedIntake(), PlayedPublisher()
        self.patience = Patience(threading.Event())
        self.now_s = 0.0
        self.earlier = Said(limit=100)
        self.joining = Joining(
            settings=Settings(feedback=FEEDBACK),
            intake=cast(Intake, self.intake),
            publisher=cast(Publisher, self.publisher),
            patience=self.patience,
            clock_s=lambda: self.now_s,
            recall=lambda held: self.earlier,
        )
        self.joining.assigned(sorted(self.intake.places))

    def let_others_be_quiet(self) -> None:
        """Time passes without anything on the partitions that are at their ends."""
        self.joining.step()
        self.now_s += 2

    def said(self) -> list[tuple[str, int]]:
        found = [read_example(r.value or b"") for r in self.publisher.published if r.topic == "shop.feedback"]
        return [(example.example_id, example.revision) for example in found]


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Played:
    monkeypatch.setenv("SHOPSTREAM_CONFIG", "shop.toml")
    return Played()


def test_positions_stay_at_what_is_open_and_move_on_when_it_is_done(played: Played) -> None:
    played.intake.put(CLICKS, to_json(click(-300, "x", of=None)))
    played.intake.put(SCORED, LIST)
    played.intake.put(SEEN, to_json(shown(1, "a")))

    played.joining.step()
    assert played.publisher.committed == {CLICKS: 1, SCORED: 0, SEEN: 0}

    played.intake.put(CLICKS, to_json(click(1000, "x", of=None)))
    played.let_others_be_quiet()
    played.joining.step()
    assert played.publisher.committed == {CLICKS: 2, SCORED: 1, SEEN: 1}
    assert played.said() == [("r~a", 0)]


def test_nothing_is_published_when_nothing_has_moved(played: Played) -> None:
    played.intake.put(SCORED, LIST)
    played.joining.step()
    played.publisher.committed.clear()

    played.joining.step()

    assert played.publisher.committed == {}


def test_when_partitions_leave_everything_open_is_read_again(played: Played) -> None:
    played.intake.put(SCORED, LIST)
    played.intake.put(SEEN, to_json(shown(1, "a")))
    played.joining.step()

    played.joining.revoked([LABELS])
    played.intake.places.remove(LABELS)
    played.joining.step()
    played.intake.put(CLICKS, to_json(click(2, "a")))
    played.joining.step()

    assert played.said() == [("r~a", 1)]


def test_a_batch_whose_partitions_leave_while_kafka_is_away_is_not_published_and_read_again(played: Played) -> None:
    played.intake.put(SCORED, LIST)
    played.intake.put(SEEN, to_json(shown(1, "a")))
    played.intake.put(CLICKS, to_json(click(2, "a")))

    def interrupt() -> None:
        played.joining.revoked([LABELS])
        played.patience.meanwhile()

    played.publisher.interrupt = interrupt
    played.joining.step()
    assert (played.said(), played.publisher.committed) == ([], {})
    assert not played.publisher.begun  # what was begun was taken back before positions were asked for

    played.joining.step()
    assert played.said() == [("r~a", 1)]
    assert played.intake.kept_alive == 1


def test_a_partition_that_gets_ahead_is_held_until_the_others_have_caught_up(played: Played) -> None:
    played.intake.pace = 1
    played.intake.put(LABELS, to_json(label(100, 1)), to_json(label(101, 1)))
    played.intake.put(SCORED, *(to_msgpack(row("order", f"o{n}", n)) for n in (0, 84, 86, 120)))

    held = []
    for _ in range(4):
        played.joining.step()
        held.append((played.intake.next[SCORED], played.intake.next[LABELS], played.intake.held_back))

    # A lead of 15 minutes is allowed; at the end the labels, at 101, may still have more to tell before 120.
    assert held == [(1, 1, {LABELS}), (2, 1, {LABELS}), (3, 1, set()), (4, 2, {SCORED})]


def test_nobody_is_held_for_a_partition_that_has_gone_quiet(played: Played) -> None:
    played.intake.put(LABELS, to_json(label(100, 1)))
    played.intake.put(SCORED, to_msgpack(row("order", "o", 200)))
    played.joining.step()
    assert played.intake.held_back == {SCORED}

    played.now_s += 2
    played.joining.step()

    assert played.intake.held_back == set()


def test_a_topic_that_may_only_be_late_holds_timers_back_until_it_is_quiet(played: Played) -> None:
    played.joining.step()
    played.now_s = 2  # all have been silent so far
    played.intake.put(SCORED, LIST)
    played.intake.put(SEEN, to_json(shown(1, "a")))
    played.joining.step()
    played.intake.put(CLICKS, to_json(click(100, "x", of=None)))
    played.joining.step()
    assert played.said() == []  # impressions and rows were being told just now

    played.now_s += 2
    played.joining.step()

    assert played.said() == [("r~a", 0)]


def test_what_is_read_to_its_end_and_what_is_held_does_not_lag(played: Played) -> None:
    played.intake.put(SCORED, LIST)
    played.joining.step()

    positions, ends = played.joining.reading()

    assert positions == ends == dict.fromkeys(played.intake.places, 1) | {SCORED: 2}


def test_a_joiner_without_partitions_or_with_other_ones_of_each_topic_is_not_ready(played: Played) -> None:
    assert "the same partitions" in (played.joining.unready() or "")  # there are no orders

    played.intake.places.add(Place("shop.orders", 0))
    assert played.joining.unready() is None

    played.intake.places.add(Place("shop.orders", 1))
    assert "shop.orders: [0, 1]" in (played.joining.unready() or "")

    played.intake.places.clear()
    assert "Found none" in (played.joining.unready() or "")


def test_unreadable_records_are_passed(played: Played) -> None:
    played.intake.put(CLICKS, b"", None, b"\xff", b"[" * 100_000, b'{"event_id": 1}')
    played.intake.put(SCORED, b"", None, b"\xff", b"\x91" * 100_000, b"{}", LIST)
    played.intake.put(SEEN, to_json(shown(1, "a")))
    played.intake.put(CLICKS, to_json(click(2, "a")))

    played.joining.step()

    assert played.said() == [("r~a", 1)]


def earlier(*keys: str) -> Said:
    made = Said(limit=100)
    made.remember(keys, [])
    made.close()
    return made


def test_what_an_earlier_life_has_said_is_not_published_again(played: Played) -> None:
    played.earlier = earlier(example_key("r~a", 1))
    played.intake.put(SCORED, LIST)
    played.intake.put(SEEN, to_json(shown(1, "a", "b")))
    played.intake.put(CLICKS, to_json(click(2, "a")), to_json(click(3, "b")))

    played.joining.step()

    assert played.said() == [("r~b", 1)]


def test_a_joiner_takes_over_before_it_speaks_and_again_when_partitions_come_or_leave(played: Played) -> None:
    played.intake.put(SCORED, LIST)
    played.joining.step()
    played.joining.step()
    assert played.publisher.taken_over == 1

    played.joining.assigned([Place("shop.orders", 0)])
    played.joining.step()
    played.joining.step()
    again = played.publisher.taken_over
    assert again > 1

    played.joining.revoked([LABELS])
    played.joining.step()
    played.joining.step()
    assert played.publisher.taken_over > again


def test_what_was_said_is_remembered_until_all_that_led_to_it_is_passed(played: Played) -> None:
    played.earlier = earlier(example_key("r~a", 0), example_key("q~a", 0))
    played.intake.put(SCORED, LIST)
    played.intake.put(SEEN, to_json(shown(1, "a")))
    played.intake.put(CLICKS, to_json(click(1000, "x", of=None)))
    played.let_others_be_quiet()
    played.joining.step()  # the list is done, and with it all that could be read again
    assert played.said() == []

    played.intake.put(SCORED, to_msgpack(row("recommendation", "q", 1001, ("a",))))
    played.intake.put(SEEN, to_json(shown(1002, "a", of="q")))
    played.intake.put(CLICKS, to_json(click(2000, "x", of=None)))
    played.let_others_be_quiet()
    played.joining.step()

    assert played.said() == [("q~a", 0)]


def test_orphans_of_earlier_lives_are_counted_on(played: Played) -> None:
    played.intake.note = write(Note({"fraud": 4}))
    played.intake.put(LABELS, to_json(label(0, 1, of="gone")), to_json(label(5000, 1, of="gone, too")))

    played.let_others_be_quiet()
    played.joining.step()

    assert metrics.ORPHANS.labels("fraud")._value.get() == 5
    assert read(played.publisher.notes[LABELS]).orphans == {"fraud": 5}


def test_a_label_from_the_future_is_moved_to_its_records_time_and_counted() -> None:
    clamped, given = metrics.CLAMPED._value.get(), label(600, 1)
    times = [at(600) - AHEAD_MS_MAX, at(600) - AHEAD_MS_MAX - 1]

    opened = [open_record("labels", Record(LABELS, 0, None, to_json(given), (), ms)) for ms in times]

    assert [one.ts_ms for one in opened if one] == [at(600), at(600) - AHEAD_MS_MAX - 1]
    assert metrics.CLAMPED._value.get() == clamped + 1


def test_partitions_that_come_later_are_joined_with_what_was_read_before(played: Played) -> None:
    played.intake.places.remove(CLICKS)
    played.intake.put(SCORED, LIST)
    played.intake.put(SEEN, to_json(shown(1, "a")))
    played.intake.put(LABELS, to_json(label(0, 1, of="gone")))
    played.joining.step()

    played.intake.places.add(CLICKS)
    played.joining.assigned([CLICKS])
    played.intake.put(CLICKS, to_json(click(2, "a")), to_json(click(5000, "x", of=None)))
    played.intake.put(LABELS, to_json(label(5000, 1, of="gone, too")))
    for _ in range(2):
        played.joining.step()
    played.let_others_be_quiet()
    played.joining.step()

    assert played.said() == [("r~a", 1), ("r~a", 2)]
    assert read(played.publisher.notes[LABELS]).orphans == {"fraud": 1}
