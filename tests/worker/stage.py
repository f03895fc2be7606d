"""A stage: topics, groups and keys of one test on the servers of all, and what is to be found there."""

import copy
import random
from collections.abc import Sequence
from typing import Any, Final

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from contract.erasures import Erasures
from contract.events import Erasure
from contract.hashing import BUCKETS
from contract.memory import MemoryProfiles, fold
from contract.rows import Decision, read_decision, to_json
from contract.settings import Kafka, Redis, Settings, Topics
from contract.touches import columns
from demo.servers.apache_kafka import ApacheKafka
from tests.conftest import Broker
from tests.worker.shop import order
from tests.worker.topics import Sender, read
from worker.batch import open_records
from worker.broker import Broker as Admin
from worker.erasure_log import read as read_erasure
from worker.intake import Place, Record
from worker.profile_store import RedisProfiles, open_profiles, source_name
from worker.redis_cluster import connect

PARTITIONS: Final = 4


class Stage:
    """Topics, groups and keys of one test on its servers."""

    def __init__(
        self,
        *,
        broker: Broker,
        redis_url: str,
        prefix: str,
        transactions: bool = True,
        batch_max: int = 10,
        is_cluster: bool = False,
    ) -> None:
        self.broker, self.prefix = broker, prefix
        self.tells_ids = isinstance(broker, ApacheKafka)
        plain = Topics()
        names = {kind: prefix + plain.of(kind) for kind in Topics.model_fields if kind != "partitions"}
        self.settings = Settings().model_copy(
            update={
                "kafka": Kafka(
                    bootstrap_servers=broker.bootstrap,
                    topic_ids=self.tells_ids,
                    transactions=transactions,
                    # Apache Kafka allows no less, and the mock cluster takes 3 s to let the first member in.
                    session_timeout_ms=6_000 if self.tells_ids else 4_000,
                    client={"heartbeat.interval.ms": 300},
                    group_prefix=f"{prefix}group",
                ),
                "redis": Redis(url=redis_url, prefix=prefix, cluster=is_cluster),
                "topics": Topics.model_validate(names),
                "worker": Settings().worker.model_copy(update={"batch_max": batch_max, "wait_ms": 5}),
            }
        )
        broker.create_topics(dict.fromkeys(names.values(), PARTITIONS))
        self._sender = Sender(broker.bootstrap)
        self.redis = connect(self.settings.redis.model_copy(update={"timeout_s": 20}))

    def close(self) -> None:
        self.redis.close()

    @property
    def topics(self) -> Topics:
        return self.settings.topics

    def send_orders(self, seed: int, count: int, first: int = 0) -> set[str]:
        """Orders o`first` and on, of few users on few devices; returns their ids."""
        draw = random.Random(f"{seed} {first}")
        orders = [
            order(
                f"o{n}",
                f"i{draw.randrange(5)}",
                user=f"u{draw.randrange(8)}",
                device=f"d{draw.randrange(4)}",
                amount=draw.randrange(10_000) / 100,
            )
            for n in range(first, first + count)
        ]
        self.send("orders", [(one.user_id, to_json(one)) for one in orders])
        return {one.event_id for one in orders}

    def send(self, kind: str, values: Sequence[tuple[str, bytes]], **more: Any) -> None:
        """Append keys and values to the topic of a kind of events."""
        self._sender.send(self.topics.of(kind), list(values), **more)

    def remove_records(self, kind: str, *, below: int) -> None:
        """Remove the first records of every partition of a topic, as retention does."""
        admin = AdminClient({"bootstrap.servers": self.broker.bootstrap, "log_level": 0})
        removed = admin.delete_records([TopicPartition(*place, below) for place in self.ends(kind)])
        for one in removed.values():
            one.result()

    def accepting_loss(self) -> "Stage":
        """The same stage for workers that go on although records are gone."""
        other = copy.copy(self)
        worker = self.settings.worker.model_copy(update={"on_lost_log": "accept"})
        other.settings = self.settings.model_copy(update={"worker": worker})
        return other

    def read(self, *kinds: str) -> list[Record]:
        return read(self.broker.bootstrap, *map(self.topics.of, kinds))

    def ends(self, *kinds: str) -> dict[Place, int]:
        """Where the partitions of these topics end that hold anything."""
        return {record.place: record.offset + 1 for record in self.read(*kinds)}

    def decisions(self) -> list[Decision]:
        return [read_decision(record.value or b"") for record in self.read("decisions")]

    def profiles(self) -> RedisProfiles:
        """Those that serve now."""
        profiles = open_profiles(self.redis, self.settings.redis.prefix)
        profiles.take_up()
        return profiles

    def source(self, place: Place) -> str:
        """What the slices of a partition of this stage are called."""
        kind = self.topics.kinds()[place.topic]
        ids = Admin(kafka=self.settings.kafka).topic_ids([place.topic])
        return source_name(kind, ids.get(place.topic), place.partition)

    def clean_pass(self, *kinds: str) -> MemoryProfiles:
        """The profiles that one undisturbed worker would have made of these topics."""
        records, profiles = self.read(*kinds), MemoryProfiles()
        places = {record.place for record in records}
        sources = {place: self.source(place) for place in places}
        batch = open_records(records, self.topics.kinds(), sources, ())
        touches = columns(batch.arrivals, erasures=self.erasures())
        writes = fold(profiles.read(touches.entities), touches).writes()
        ends = {sources[place]: at for place, at in batch.ends.items()}
        profiles.merge(writes, {}, dict.fromkeys(range(BUCKETS), ends))
        return profiles

    def erase(self, user: str, ts_ms: int, event_id: str = "") -> Erasure:
        """Write that a person is to be forgotten."""
        erasure = Erasure(event_id=event_id or f"g-{user}-{ts_ms}", ts_ms=ts_ms, user_id=user)
        self.send("erasures", [(user, to_json(erasure))])
        return erasure

    def erasures(self) -> Erasures:
        """What the topic of erasures says now."""
        return Erasures(one for record in self.read("erasures") if (one := read_erasure(record).erasure))

    def differences(self, *kinds: str) -> list[str]:
        """In which entities and positions Redis is not what a clean pass gives; slices of other logs are left out."""
        clean, store = self.clean_pass(*kinds), self.profiles()
        entities = sorted(clean.slices)
        found = store.read(entities)
        sources = {source for ends in clean.positions.values() for source in ends}
        own = [{source: slices[source] for source in slices if source in sources} for slices in found]
        wrong = [entity for entity, slices in zip(entities, own, strict=True) if slices != clean.slices[entity]]
        merged = store.merged(sources)
        return wrong + [f"merged of bucket {b}" for b, ends in clean.positions.items() if merged[b] != ends]
