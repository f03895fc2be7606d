"""The audit of what Redis holds: every slice beside the plain oracle of the tests, which reads the log from Kafka."""

from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

import msgspec

from bench.kafka_log import KafkaLog, Logged
from bench.stage import Stage
from contract.errors import BadEvent
from contract.events import Event, decode
from contract.hashing import BUCKETS
from contract.profiles.record import profile_key
from testkit.oracle.profiles import ProfileOracle
from testkit.oracle.records import first_difference
from worker.kafka.admin import KafkaAdmin
from worker.redis.client import RedisClient, to_pairs
from worker.state.profile_store import open_profile_store, source_name

FOLDED: Final = ("orders", "reviews", "judgements", "clicks", "impressions", "searches")
AHEAD_MS: Final = 5 * 60_000
Named: TypeAlias = tuple[str, str]  # entity and source


class Audit:
    """Compares the profiles of a stage with its log."""

    def __init__(self, stage: Stage, kinds: Sequence[str] = FOLDED) -> None:
        self._stage, self._kinds = stage, kinds
        self._log = KafkaLog(bootstrap=stage.kafka.bootstrap)
        self._redis = RedisClient(url=stage.redis.url, timeout_s=60)
        topics = [stage.topics.topic_name(kind) for kind in kinds]
        self._ids = KafkaAdmin(kafka=stage.settings).fetch_topic_ids(topics)

    def source(self, kind: str, partition: int) -> str:
        """What a partition's slices are called."""
        return source_name(kind, self._ids[self._stage.topics.topic_name(kind)], partition)

    def mismatches(self, begun: ProfileOracle | None = None) -> list[str]:
        """Each slice that is not what the oracle makes of the log, in words; also those too many or missing.

        `begun`: an oracle that knows of records which are in the log no more.
        """
        slices, held = self.oracle(begun).slices, dict(self.slices())
        return [
            f"{entity} of {source}: {difference}"
            for entity, source in sorted(set(held) | set(slices))
            if (difference := first_difference(slices.get((entity, source)), held.get((entity, source))))
        ]

    def oracle(self, begun: ProfileOracle | None = None) -> ProfileOracle:
        """The oracle after every partition of every topic that is folded; `begun` goes on, if given."""
        oracle = begun or ProfileOracle()
        for kind in self._kinds:
            for logged in self._log.read(self._stage.topics.topic_name(kind)):
                if (event := opened(kind, logged)) is not None:
                    oracle.add(self.source(kind, logged.place.partition), logged.place.offset, event)
        return oracle

    def slices(self) -> Iterator[tuple[Named, bytes]]:
        """Every slice in Redis by entity and source; a profile under a key that nobody would ask for has no entity."""
        prefix, cursor, begun = self._prefix(), 0, False
        while cursor or not begun:
            ((found, keys),) = self._redis.pipeline([("SCAN", cursor, "MATCH", f"{prefix}profile:*", "COUNT", 1_000)])
            cursor, begun = int(found), True
            for raw, held in zip(keys, self._redis.pipeline([("HGETALL", key) for key in keys]), strict=True):
                key = raw.decode().removeprefix(prefix)
                entity = key.partition("}:")[2]
                for source, record in to_pairs(held):
                    yield (entity if key == profile_key(entity) else f"misplaced {key}", source.decode()), record

    def unmerged(self) -> list[str]:
        """Sources that some bucket does not hold to their end."""
        ends = self._log.ends(self._stage.topics.topic_name(kind) for kind in self._kinds)
        kinds = {self._stage.topics.topic_name(kind): kind for kind in self._kinds}
        should = {self.source(kinds[topic], partition).encode(): end for (topic, partition), end in ends.items()}
        lagging = set[str]()
        prefix = self._prefix()
        keys = [f"{prefix}merged:{{{bucket}}}" for bucket in range(BUCKETS)]
        for held in self._redis.pipeline([("HGETALL", key) for key in keys]):
            merged = dict(to_pairs(held))
            lagging |= {source.decode() for source, end in should.items() if int(merged.get(source, -1)) != end}
        return sorted(lagging)

    def decisions(self, event_ids: list[str]) -> Iterator[bytes | None]:
        """What stands in Redis as the decision on each of these events."""
        keys = [f"{self._stage.redis_prefix}decision:{ident}" for ident in event_ids]
        yield from self._redis.pipeline([("GET", key) for key in keys])

    def close(self) -> None:
        self._redis.close()

    def _prefix(self) -> str:
        """What the keys of the state begin with that serves."""
        profiles = open_profile_store(self._redis, self._stage.redis_prefix)
        profiles.refresh_generation()
        return profiles.prefix


def opened(kind: str, logged: Logged) -> Event | None:
    """The event of a record, its time at most five minutes ahead of the record's own; None for a bad record."""
    try:
        event = decode(kind, logged.value)
    except BadEvent:
        return None
    ahead = logged.kafka_ms >= 0 and event.ts_ms > logged.kafka_ms + AHEAD_MS
    return msgspec.structs.replace(event, ts_ms=logged.kafka_ms) if ahead else event
