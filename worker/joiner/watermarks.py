"""Watermarks: how far event time has advanced over partitions that are read at different speeds. Pure.

No single record and no single user advances it: the time of a partition is the latest one that three of its users have
reached. The watermark is the lowest time of the partitions that have more to read, so no timer fires before the slower
topics have delivered their events up to that time. When every partition has been read to its end, no earlier event can
follow: then the watermark is the time that three users of any partition have reached, and one user may be ahead of
them by as much as Kafka's own time has passed since, and by `LONE_STEP_MS`.
"""

from collections.abc import Hashable, Iterable, Mapping
from types import MappingProxyType
from typing import Final, Generic, NamedTuple, TypeVar

from contract.units import DAY_MS

P = TypeVar("P", bound=Hashable)
AGREEING_USERS: Final = 3
LONE_STEP_MS: Final = 7 * DAY_MS


class RecordTime(NamedTuple):
    """The event time of a record, and its Kafka time; None if that cannot confirm the event time."""

    ms: int
    kafka_ms: int | None


class UserTimes:
    """The latest times of the users of one partition; of more than `AGREEING_USERS` those of the latest ones."""

    def __init__(
        self, by_user: Mapping[str, RecordTime] = MappingProxyType({}), earliest: RecordTime | None = None
    ) -> None:
        self.by_user = dict(by_user)
        self.earliest = earliest

    def observe(self, user: str, time: RecordTime) -> None:
        if self.earliest is None or time.ms < self.earliest.ms:
            self.earliest = time
        known = self.by_user.get(user)
        if known is None or time.ms > known.ms:
            self.by_user[user] = time
            if len(self.by_user) > AGREEING_USERS:
                del self.by_user[min(self.by_user, key=lambda name: self.by_user[name].ms)]

    def find_agreed(self) -> RecordTime | None:
        """The latest time that `AGREEING_USERS` have reached; with fewer users as below."""
        return find_agreed(self.by_user, [self])


def find_agreed(by_user: Mapping[str, RecordTime], partitions: Iterable[UserTimes]) -> RecordTime | None:
    """The latest time that enough users have reached: three, or two if there are no more.

    A lone user has only its first time, because no other user confirms a later one. None without any time.
    """
    if len(by_user) < 2:
        earliest = [times.earliest for times in partitions if times.earliest]
        return min(earliest, key=lambda time: time.ms, default=None)
    latest = sorted(by_user.values(), key=lambda time: time.ms, reverse=True)
    return latest[:AGREEING_USERS][-1]


class Watermarks(Generic[P]):
    """The watermark of a set of partitions; it never goes back."""

    def __init__(self) -> None:
        self._times: dict[P, UserTimes] = {}
        self._at_end: set[P] = set()
        self._now_ms: int | None = None

    def restore(self, times_by_partition: Mapping[P, UserTimes], now_ms: int | None) -> None:
        """Go on with the times that `times_by_partition` and `now_ms` returned."""
        self._times.update(times_by_partition)
        self._now_ms = now_ms

    def times_by_partition(self) -> Mapping[P, UserTimes]:
        """The times of the latest users of each partition."""
        return self._times

    def add_partitions(self, partitions: Iterable[P]) -> None:
        """Hold the watermark back for these partitions from now on."""
        for partition in partitions:
            self._times.setdefault(partition, UserTimes())

    def observe(self, partition: P, user: str, time: RecordTime) -> None:
        """Record the time of a user's record that was read."""
        self._times.setdefault(partition, UserTimes()).observe(user, time)

    def set_at_end(self, partitions: Iterable[P]) -> None:
        """Exactly these partitions have been read to their ends."""
        self._at_end = set(partitions)

    def now_ms(self) -> int | None:
        """The watermark; None until every partition has had an event or is at its end."""
        reading = [self._find_agreed_ms(partition) for partition in self._times if partition not in self._at_end]
        if None in reading:
            return self._now_ms
        bound_ms = self._find_bound_ms()
        if bound_ms is not None:
            # The bound is lower where a partition has too few users of its own.
            watermark_ms = min([bound_ms, *(ms for ms in reading if ms is not None)])
            self._now_ms = watermark_ms if self._now_ms is None else max(watermark_ms, self._now_ms)
        return self._now_ms

    def find_latest_ms(self) -> int | None:
        """The latest time that users of any partitions agree on, or that a lone one has reached; None without any."""
        by_user = self._merge_users()
        latest = find_agreed(by_user, self._times.values()) if len(by_user) > 1 else next(iter(by_user.values()), None)
        return latest.ms if latest else None

    def measure_held_ms(self) -> dict[P, int]:
        """How far each partition that has more to read holds the watermark back: from its time to the latest one.

        Of one without an event, from the watermark. Empty without any event.
        """
        bound_ms = self._find_bound_ms()
        if bound_ms is None:
            return {}
        known_ms = bound_ms if self._now_ms is None else self._now_ms
        held_ms = {}
        for partition in self._times.keys() - self._at_end:
            agreed_ms = self._find_agreed_ms(partition)
            held_ms[partition] = max(0, bound_ms - (known_ms if agreed_ms is None else agreed_ms))
        return held_ms

    def partitions_ahead(self, lead_ms: int) -> set[P]:
        """Partitions more than `lead_ms` ahead of the slowest partition that has more to read."""
        agreed_ms = {partition: ms for partition in self._times if (ms := self._find_agreed_ms(partition)) is not None}
        reading = [ms for partition, ms in agreed_ms.items() if partition not in self._at_end]
        if not reading:
            return set()
        return {partition for partition, ms in agreed_ms.items() if ms > min(reading) + lead_ms}

    def _find_agreed_ms(self, partition: P) -> int | None:
        agreed = self._times[partition].find_agreed()
        return agreed.ms if agreed else None

    def _find_bound_ms(self) -> int | None:
        """The watermark when everything was read, which no other is above; None without any time."""
        by_user = self._merge_users()
        agreed = find_agreed(by_user, self._times.values())
        if agreed is None:
            return None
        return max(find_lone_ms(time, agreed) for time in (agreed, *by_user.values()))

    def _merge_users(self) -> dict[str, RecordTime]:
        """The latest times of the users of all partitions."""
        by_user: dict[str, RecordTime] = {}
        for times in self._times.values():
            for user, time in times.by_user.items():
                if user not in by_user or time.ms > by_user[user].ms:
                    by_user[user] = time
        return by_user


def find_lone_ms(lone: RecordTime, agreed: RecordTime) -> int:
    """How far one user's record moves the watermark when nothing else is left to read.

    Its Kafka time confirms that time has passed since the others' records. Where events of the past are loaded, Kafka
    times say nothing about it, and the record moves the watermark by a bounded step.
    """
    if lone.kafka_ms is None:
        return agreed.ms
    passed_ms = max(0, lone.kafka_ms - agreed.kafka_ms) if agreed.kafka_ms is not None else 0
    return min(lone.ms, agreed.ms + passed_ms + LONE_STEP_MS)


class IdlePartitions(Generic[P]):
    """Partitions that are at their ends and have had no timely record for `after_s`; these hold no watermark back.

    A joiner that has caught up is at the end of nearly every partition nearly always. Only a pause tells an idle topic
    from one whose records are still to come: rows follow their events by the time that scoring takes.
    """

    def __init__(self, *, after_s: float) -> None:
        self._after_s = after_s
        self._since_s: dict[P, float] = {}

    def update(self, at_end: Iterable[P], timely: Iterable[P], untimely: Iterable[P], now_s: float) -> set[P]:
        """The idle partitions after a poll that reached the ends of `at_end`.

        Partitions in `timely` had records that are near the time of the others, those in `untimely` only records that
        are older than everything that waits, or that have no time: no other record has to wait for more of these.
        """
        for partition in timely:
            self._since_s.pop(partition, None)
        known = {partition: self._since_s[partition] for partition in untimely if partition in self._since_s}
        self._since_s = known | {partition: self._since_s.get(partition, now_s) for partition in at_end}
        return {partition for partition, since_s in self._since_s.items() if now_s - since_s >= self._after_s}
