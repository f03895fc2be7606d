"""Confirming: says on a topic of its own that an erasure is carried out, once nothing of the person is left in Redis.

Whoever of the orders lane holds the erasure's partition confirms it. It waits until every partition of every lane that
has ever worked is marked as past the erasure by its holder, looks whether the profile holds nothing older, and
publishes in one transaction with the group's position behind it. So that position says what is confirmed, and readers
of committed records see each confirmation once, whoever dies in between and whatever Redis forgets.
"""

import logging
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Final

from contract.rows import Erased, to_json
from contract.settings import Topics
from worker import metrics
from worker.broker import Broker
from worker.erasure_log import ErasureLog, Noted
from worker.erasure_marks import NOWHERE, ErasureMarks, Reached, holder
from worker.intake import Place
from worker.lanes import LANES
from worker.positions import Positions
from worker.profile_store import RedisProfiles, source_name
from worker.protocol import Protocol
from worker.publisher import Outgoing
from worker.redis_client import pairs
from worker.slice_eraser import judge

log = logging.getLogger(__name__)
AT_ONCE: Final = 1_000


class Confirming:
    """Finds which erasures can be confirmed, and says so."""

    def __init__(
        self,
        *,
        topics: Topics,
        erasure_log: ErasureLog,
        marks: ErasureMarks,
        profiles: RedisProfiles,
        positions: Positions,
        broker: Broker,
    ) -> None:
        self._topics, self._log, self._marks = topics, erasure_log, marks
        self._profiles, self._positions, self._broker = profiles, positions, broker

    def confirm(self, protocol: Protocol) -> None:
        """Say what is carried out, if that is this worker's to say; raises `Unavailable`, or `Dropped`."""
        ready = self.ready()
        if ready:
            protocol.say(self.outgoing(ready), {one.place: one.offset + 1 for one in ready})
            metrics.ERASURES_CONFIRMED.inc(sum(one.erasure is not None for one in ready))

    def ready(self) -> list[Noted]:
        """What this worker has to say now, in the order of each partition; raises `Unavailable`."""
        waiting = self._waiting()
        metrics.ERASURES_PENDING.set(sum(one.erasure is not None for one in waiting))
        if not waiting:
            return []
        done = self.done_by_all()
        passed = [one for one in waiting if one.erasure and one.offset < done.get(self._marks.name(one.place), 0)]
        plain = [one for one in waiting if not one.erasure]
        return self._in_turn(waiting, [*plain, *self._gone(passed)])[:AT_ONCE]

    def outgoing(self, ready: Sequence[Noted]) -> list[Outgoing]:
        """The confirmations, and a dead letter for what is no erasure."""
        said = [Erased(event_id=e.event_id, user_id=e.user_id, ts_ms=e.ts_ms) for one in ready if (e := one.erasure)]
        letters = [one.reject.letter(self._topics.dead_letters, "") for one in ready if one.reject]
        return [*(Outgoing(self._topics.erased, one.user_id, to_json(one)) for one in said), *letters]

    def done_by_all(self) -> Reached:
        """How far all holders are with each partition of the topic of erasures.

        Where Redis has no mark and Kafka knows of no answer either, nothing was ever written. Redis alone cannot tell:
        it may have lost the mark of a lane whose lists lie on another server. Marks of partitions that exist no more
        do not count.
        """
        marks, held = self._marks.read(), list[Reached]()
        for lane in LANES.values():
            places = self._broker.places([self._topics.of(kind) for kind in lane.folds + lane.watches])
            worked = self._broker.worked(lane.name, places)
            fields = {place: holder(lane.name, place) for place in places}
            held += [marks.get(field, NOWHERE) for place, field in fields.items() if field in marks or place in worked]
        names = {name for mark in held for name in mark}
        return {name: min(mark.get(name, 0) for mark in held) for name in names}

    def _waiting(self) -> list[Noted]:
        """What has come to the partitions that are held and is not confirmed yet."""
        found = list[Noted]()
        for place, noted in self._log.unconfirmed.items():
            if place in self._positions.committed:
                while noted and self._positions.is_answered(place, noted[0].offset):
                    noted.popleft()
                found += islice(noted, AT_ONCE)
        return found

    def _in_turn(self, waiting: Sequence[Noted], gone: Sequence[Noted]) -> list[Noted]:
        """Those of them behind which nothing else of their partition waits."""
        ready, stuck, found = set(map(id, gone)), set[Place](), list[Noted]()
        for one in waiting:
            if id(one) not in ready:
                stuck.add(one.place)
            elif one.place not in stuck:
                found.append(one)
        return found

    def _gone(self, passed: Sequence[Noted]) -> list[Noted]:
        """Those of whom Redis holds nothing older; slices that nobody owns are deleted on the way."""
        users = [f"user:{one.erasure.user_id}" for one in passed if one.erasure]
        live = self._live_sources() if users else set()
        replies = self._profiles.client.pipeline([("HGETALL", self._profiles.key(user)) for user in users])
        found = list[Noted]()
        for one, user, reply in zip(passed, users, replies, strict=True):
            slices = {name.decode(): record for name, record in pairs(reply)}
            self._delete(user, [source for source in slices if source not in live])
            until_ms = self._log.erasures.until_ms[user]
            if any(judge(user, s, until_ms, record, False) for s, record in slices.items() if s in live):
                log.warning("User %s is not forgotten yet, which is confirmed later.", user.removeprefix("user:"))
            else:
                found.append(one)
        return found

    def _delete(self, user: str, strays: Sequence[str]) -> None:
        """Delete slices whose partition exists no more."""
        if strays:
            self._profiles.client.pipeline([("HDEL", self._profiles.key(user), *strays)])

    def _live_sources(self) -> set[str]:
        kinds: Mapping[str, str] = {self._topics.of(kind): kind for lane in LANES.values() for kind in lane.folds}
        ids = self._broker.topic_ids(kinds)
        return {source_name(kinds[p.topic], ids.get(p.topic), p.partition) for p in self._broker.places(kinds)}
