"""Erases the guests of erased users: their logins tell under which ids they acted before.

Each worker does so for the logins of its own sources. First it writes an erasure of each guest, up to the user's latest
login on it, to the erasures topic; only then it deletes the logins. So a crash in between repeats it, and all that know
erasures (workers, joiner, learner, monitor, `rebuild`, `verify`) erase the guest as any other user. What the logins of
a user hold after an erasure follows from them alone, so nothing has to be folded again.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple

from contract.events.model import Erasure
from contract.hashing import bucket_of
from contract.profiles.erasures import Erasures
from contract.profiles.logins import LOGINS, find_logins_defect, is_guest_entity, read_rows, write_rows
from contract.profiles.store import MergedOffsets
from worker.erasure.guarded_fields import FieldWrite, write_fields
from worker.kafka.outgoing import OutgoingRecord
from worker.records.guest_erasures import is_new, make_erasure, to_record
from worker.state.history_registry import HistoryRegistry
from worker.state.profile_store import RedisProfileStore

PAGE_MAX: Final = 500  # users
Publish = Callable[[Sequence[OutgoingRecord]], None]


class LoginRemoval(NamedTuple):
    """What is left of the logins of a user and source; empty for nothing."""

    user: str
    source: str
    record: bytes


class GuestEraser:
    """Erases the guests of users. `topic`: of erasures."""

    def __init__(self, *, profiles: RedisProfileStore, topic: str) -> None:
        self._profiles, self._topic = profiles, topic

    def erase(
        self,
        requests: Iterable[Erasure],
        erasures: Erasures,
        sources: Iterable[str],
        merged: MergedOffsets,
        publish: Publish,
    ) -> None:
        """Erase the guests of these users, and the users' logins, in these sources and those of a history.

        `erasures`: all that are known. `merged` are the offsets that Redis should hold. Raises `StaleState` or
        `Unavailable`; idempotent.
        """
        users = iter(requests)
        own, historic = list(sources), list(HistoryRegistry(self._profiles).read())
        while page := list(islice(users, PAGE_MAX)):
            guest_erasures, removals = self._find(page, erasures, [*own, *historic])
            records = [to_record(erasure, self._topic) for erasure in guest_erasures if is_new(erasure, erasures)]
            if records:
                publish(records)
            self._write(removals, own, merged)

    def _find(
        self, requests: Sequence[Erasure], erasures: Erasures, sources: Sequence[str]
    ) -> tuple[list[Erasure], list[LoginRemoval]]:
        guest_erasures = [make_erasure(r.event_id, r.guest_id, r.ts_ms) for r in requests if r.guest_id]
        removals = list[LoginRemoval]()
        for request, user, source, record in self._read(requests, sources):
            until_ms = erasures.until_ms[user]
            rows = () if find_logins_defect(record) else read_rows(record)  # unreadable ones are deleted
            guest_erasures += [
                make_erasure(request.event_id, guest, min(until_ms, latest_ms)) for guest, _, latest_ms in rows
            ]
            left = write_rows([row for row in rows if row[2] > until_ms])
            if left != record:
                removals.append(LoginRemoval(user, source, left))
        return guest_erasures, removals

    def _read(self, requests: Sequence[Erasure], sources: Sequence[str]) -> Iterator[tuple[Erasure, str, str, bytes]]:
        """The logins of users, not of guests, with the erasure and the source."""
        entities = [(request, f"user:{request.user_id}") for request in requests]
        entities = [(request, user) for request, user in entities if not is_guest_entity(user)]
        if not entities or not sources:
            return
        keys = self._profiles.keys.histories([user for _, user in entities])
        fields = [LOGINS + source for source in sources]
        replies = self._profiles.client.pipeline([("HMGET", key, *fields) for key in keys])
        for (request, user), records in zip(entities, replies, strict=True):
            for source, record in zip(sources, records, strict=True):
                if record is not None:
                    yield request, user, source, record

    def _write(self, removals: Sequence[LoginRemoval], own: Sequence[str], merged: MergedOffsets) -> None:
        keys = self._profiles.keys.histories([removal.user for removal in removals])
        writes = [
            # No worker writes a history.
            FieldWrite(bucket_of(user), key, LOGINS + source, record, source if source in own else None)
            for (user, source, record), key in zip(removals, keys, strict=True)
        ]
        write_fields(self._profiles, writes, merged)
