"""The state audit: compares all slices, histories and logins in Redis with a plain oracle that folds the same log."""

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeAlias

import msgspec

from contract.errors import BadEvent
from contract.events.model import AHEAD_MS_MAX, Event
from contract.events.reading import decode
from contract.hashing import BUCKETS
from contract.profiles.histories import history_key, user_from_history_key
from contract.profiles.record import entity_from_key, profile_key
from contract.redis_keys import escape_id
from testkit.environment.kafka_log import KafkaLog, Offsets
from testkit.environment.run_environment import RunEnvironment
from testkit.oracle.logins import FIELD, describe_difference
from testkit.oracle.profiles import ProfileOracle
from testkit.oracle.records import first_difference, history_difference
from transport.records import Record
from worker.kafka.admin import KafkaAdmin
from worker.redis.client import RedisClient, to_pairs
from worker.state.profile_store import open_profile_store, source_name

FOLDED_KINDS: Final = ("orders", "reviews", "judgements", "clicks", "impressions", "searches")
SliceName: TypeAlias = tuple[str, str]  # entity and source


class StateAudit:
    """Compares the profiles of one run with its log."""

    def __init__(self, environment: RunEnvironment, kinds: Sequence[str] = FOLDED_KINDS) -> None:
        self._environment, self._kinds = environment, kinds
        self._log = KafkaLog(bootstrap=environment.kafka.bootstrap)
        self._redis = RedisClient(url=environment.redis.url, timeout_s=60)
        topics = [environment.topics.topic_name(kind) for kind in kinds]
        self._topic_ids = KafkaAdmin(kafka=environment.kafka_settings).fetch_topic_ids(topics)

    def build_source_name(self, kind: str, partition: int) -> str:
        """The source name of a partition's slices."""
        return source_name(kind, self._topic_ids[self._environment.topics.topic_name(kind)], partition)

    def find_mismatches(self, prior: ProfileOracle | None = None) -> list[str]:
        """Each record that differs from the oracle's, is missing or should not exist, as a sentence.

        `prior`: an oracle that has folded records which are no longer in the log.
        """
        return self.compare(self.build_oracle(prior))

    def compare(self, oracle: ProfileOracle, *, only_existing_topics: bool = False) -> list[str]:
        """Each record that differs from the oracle's, is missing or should not exist, as a sentence.

        `only_existing_topics`: leave out slices of topics that were deleted, which cannot be folded again.
        """
        expected, stored, erased_until = oracle.slices, dict(self.read_slices()), oracle.erased_until
        histories, stored_histories = oracle.histories(), dict(self.read_histories())
        logins, stored_logins = oracle.logins.rows(), dict(self.read_logins())
        logs = {self.build_source_name(kind, 0).rpartition("/")[0] for kind in self._kinds}
        return (
            [
                f"{entity} of {source}: {difference}"
                for entity, source in sorted(set(stored) | set(expected))
                if (source.rpartition("/")[0] in logs or not only_existing_topics)
                and (
                    difference := first_difference(
                        expected.get((entity, source)), stored.get((entity, source)), erased_until
                    )
                )
            ]
            + [
                f"history of {user}, {source}: {difference}"
                for user, source in sorted(set(stored_histories) | set(histories))
                if (source.rpartition("/")[0] in logs or not only_existing_topics)
                and (
                    difference := history_difference(
                        histories.get((user, source)), stored_histories.get((user, source))
                    )
                )
            ]
            + [
                f"logins of {user}, {source}: {difference}"
                for user, source in sorted(set(stored_logins) | set(logins))
                if (source.rpartition("/")[0] in logs or not only_existing_topics)
                and (difference := describe_difference(logins.get((user, source)), stored_logins.get((user, source))))
            ]
        )

    def build_oracle(self, prior: ProfileOracle | None = None) -> ProfileOracle:
        """The oracle after every partition of every folded topic; continues `prior`, if given."""
        oracle = prior or ProfileOracle()
        for kind in self._kinds:
            for record in self._log.read(self._environment.topics.topic_name(kind)):
                if (event := decode_event(kind, record)) is not None:
                    oracle.add(self.build_source_name(kind, record.topic_partition.partition), record.offset, event)
        return oracle

    def read_slices(self) -> Iterator[tuple[SliceName, bytes]]:
        """Every slice in Redis by entity and source; a profile under a wrong key is named `misplaced KEY`."""
        yield from self._read("profile:", entity_from_key, profile_key)

    def read_histories(self) -> Iterator[tuple[SliceName, bytes]]:
        """Every history in Redis by user and source; one under a wrong key is named `misplaced KEY`."""
        for (user, field), record in self._read("history:", user_from_history_key, history_key):
            if not field.startswith(FIELD):
                yield (user, field), record

    def read_logins(self) -> Iterator[tuple[SliceName, bytes]]:
        """Every record of logins in Redis by user or guest, and source."""
        for (user, field), record in self._read("history:", user_from_history_key, history_key):
            if field.startswith(FIELD):
                yield (user, field.removeprefix(FIELD)), record

    def _read(
        self, kind: str, parse_key: Callable[[str], str], build_key: Callable[[str], str]
    ) -> Iterator[tuple[SliceName, bytes]]:
        prefix = self._read_prefix()
        for keys in self._redis.scan(f"{prefix}{kind}"):
            for full_key, fields in zip(keys, self._redis.pipeline([("HGETALL", key) for key in keys]), strict=True):
                key = full_key.removeprefix(prefix)
                entity = parse_key(key)
                for source, record in to_pairs(fields):
                    yield (entity if key == build_key(entity) else f"misplaced {key}", source.decode()), record

    def find_unmerged(self, ends: Offsets | None = None) -> list[str]:
        """Sources that are not merged to their end in every bucket; `ends`: those of records, if markers follow."""
        is_behind = operator.ne if ends is None else operator.lt
        if ends is None:
            ends = self._log.read_end_offsets(self._environment.topics.topic_name(kind) for kind in self._kinds)
        kinds = {self._environment.topics.topic_name(kind): kind for kind in self._kinds}
        expected_ends = {
            self.build_source_name(kinds[topic], partition).encode(): end
            for (topic, partition), end in ends.items()
            if topic in kinds
        }
        unmerged = set[str]()
        prefix = self._read_prefix()
        keys = [f"{prefix}merged:{{{bucket}}}" for bucket in range(BUCKETS)]
        for fields in self._redis.pipeline([("HGETALL", key) for key in keys]):
            merged = dict(to_pairs(fields))
            unmerged |= {
                source.decode() for source, end in expected_ends.items() if is_behind(int(merged.get(source, -1)), end)
            }
        return sorted(unmerged)

    def read_decisions(self, event_ids: list[str]) -> Iterator[bytes | None]:
        """The stored decision of each of these events."""
        keys = [f"{self._environment.redis_prefix}decision:{escape_id(event_id)}" for event_id in event_ids]
        yield from self._redis.pipeline([("GET", key) for key in keys])

    def close(self) -> None:
        self._redis.close()

    def _read_prefix(self) -> str:
        """The key prefix of the serving generation."""
        profiles = open_profile_store(self._redis, self._environment.redis_prefix)
        profiles.refresh_generation()
        return profiles.prefix


def decode_event(kind: str, record: Record) -> Event | None:
    """The event of a record, its time clamped if it is too far ahead of the record's own; None for a bad record."""
    try:
        event = decode(kind, record.value)
    except BadEvent:
        return None
    is_ahead = record.kafka_ms >= 0 and event.ts_ms > record.kafka_ms + AHEAD_MS_MAX
    return msgspec.structs.replace(event, ts_ms=record.kafka_ms) if is_ahead else event
