"""The topics, groups and keys of one test on shared servers, and what they hold."""

import copy
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient

from contract.events.model import Erasure
from contract.hashing import BUCKETS
from contract.messages import Decision, read_decision, to_json
from contract.profiles.entity_updates import to_updates
from contract.profiles.erasures import Erasures
from contract.profiles.store import InMemoryProfileStore, fold
from contract.settings.reading import Settings
from contract.settings.servers import KafkaSettings, RedisSettings, TopicSettings
from devservers.apache_kafka import ApacheKafka
from tests.conftest import KafkaBroker
from tests.kafka import BlockingProducer, read_topics
from tests.worker.events import make_order
from transport.records import Record, TopicPartition
from worker.erasure.topic import decode_erasure
from worker.kafka.admin import KafkaAdmin as Admin
from worker.records.batch import decode_records
from worker.redis.cluster import connect
from worker.state.profile_store import RedisProfileStore, open_profile_store, source_name

PARTITIONS: Final = 4


class WorkerEnvironment:
    """Topics, groups and keys of one test on its servers."""

    def __init__(
        self,
        *,
        broker: KafkaBroker,
        redis_url: str,
        prefix: str,
        transactions: bool = True,
        batch_max: int = 10,
        is_cluster: bool = False,
        topics: TopicSettings | None = None,
    ) -> None:
        """`topics`: the default names, to which the prefix is added."""
        self.broker, self.prefix = broker, prefix
        self.has_topic_ids = isinstance(broker, ApacheKafka)
        plain = topics or TopicSettings()
        names = {kind: prefix + name for kind, name in plain.names_by_kind().items()}
        self.settings = Settings().model_copy(
            update={
                "kafka": KafkaSettings(
                    bootstrap_servers=broker.bootstrap,
                    topic_ids=self.has_topic_ids,
                    transactions=transactions,
                    # The minimum of Apache Kafka; the mock cluster takes 3 s to let the first member in.
                    session_timeout_ms=6_000 if self.has_topic_ids else 4_000,
                    client={"heartbeat.interval.ms": 300},
                    group_prefix=f"{prefix}group",
                ),
                "redis": RedisSettings(url=redis_url, prefix=prefix, cluster=is_cluster),
                "topics": type(plain).model_validate(names),
                "worker": Settings().worker.model_copy(update={"batch_max": batch_max, "wait_ms": 5}),
            }
        )
        broker.create_topics(dict.fromkeys(names.values(), PARTITIONS))
        self._producer = BlockingProducer(broker.bootstrap)
        self.redis = connect(self.settings.redis.model_copy(update={"timeout_s": 20}))

    def close(self) -> None:
        self._producer.close()
        self.redis.close()

    @property
    def topics(self) -> TopicSettings:
        return self.settings.topics

    def send_orders(self, seed: int, count: int, first: int = 0) -> set[str]:
        """Send orders from o`first` on, of few users on few devices; returns their ids."""
        rng = random.Random(f"{seed} {first}")
        orders = [
            make_order(
                f"o{n}",
                f"i{rng.randrange(5)}",
                user=f"u{rng.randrange(8)}",
                device=f"d{rng.randrange(4)}",
                amount=rng.randrange(10_000) / 100,
            )
            for n in range(first, first + count)
        ]
        self.send("orders", [(order_event.user_id, to_json(order_event)) for order_event in orders])
        return {order_event.event_id for order_event in orders}

    def send(self, kind: str, values: Sequence[tuple[str, bytes]], **options: Any) -> None:
        """Send keys and values to the topic of a kind of events."""
        self._producer.send(self.topics.topic_name(kind), list(values), **options)

    def remove_records(self, kind: str, *, below: int) -> None:
        """Remove the first records of every partition of a topic, as retention does."""
        admin = AdminClient({"bootstrap.servers": self.broker.bootstrap, "log_level": 0})
        removed = admin.delete_records([KafkaPartition(*partition, below) for partition in self.end_offsets(kind)])
        for future in removed.values():
            future.result()

    def settings_for(self, instance: str) -> Settings:
        """The settings of one worker of this environment."""
        worker = self.settings.worker.model_copy(update={"instance": instance})
        return self.settings.model_copy(update={"worker": worker})

    def set_transactions(self, transactions: bool) -> None:
        """Whether workers publish in transactions from now on."""
        kafka = self.settings.kafka.model_copy(update={"transactions": transactions})
        self.settings = self.settings.model_copy(update={"kafka": kafka})

    def with_accepted_loss(self) -> "WorkerEnvironment":
        """The same environment for workers that continue although records are gone."""
        other = copy.copy(self)
        worker = self.settings.worker.model_copy(update={"on_lost_log": "accept"})
        other.settings = self.settings.model_copy(update={"worker": worker})
        return other

    def read_records(self, *kinds: str) -> list[Record]:
        return read_topics(self.broker.bootstrap, *map(self.topics.topic_name, kinds))

    def end_offsets(self, *kinds: str) -> dict[TopicPartition, int]:
        """The ends of the partitions of these topics that hold records."""
        return {record.topic_partition: record.offset + 1 for record in self.read_records(*kinds)}

    def read_decisions(self) -> list[Decision]:
        return [read_decision(record.value or b"") for record in self.read_records("decisions")]

    def is_decided_once(self, order_ids: set[str]) -> bool:
        """Whether exactly these orders have a published decision, one each."""
        return Counter(decision.event_id for decision in self.read_decisions()) == Counter(order_ids)

    def open_profiles(self) -> RedisProfileStore:
        """The profiles of the serving generation."""
        profiles = open_profile_store(self.redis, self.settings.redis.prefix)
        profiles.refresh_generation()
        return profiles

    def source_of(self, partition: TopicPartition) -> str:
        """The name of the slices of a partition."""
        kind = self.topics.kinds_by_topic()[partition.topic]
        ids = Admin(kafka=self.settings.kafka).fetch_topic_ids([partition.topic])
        return source_name(kind, ids.get(partition.topic), partition.partition)

    def recompute_profiles(self, *kinds: str) -> InMemoryProfileStore:
        """The profiles that one undisturbed worker would have folded from these topics."""
        records, profiles = self.read_records(*kinds), InMemoryProfileStore()
        partitions = {record.topic_partition for record in records}
        sources = {partition: self.source_of(partition) for partition in partitions}
        batch = decode_records(records, self.topics.kinds_by_topic(), sources, ())
        updates = to_updates(batch.arrivals, erasures=self.read_erasures(), kinds=self.settings.entity_kinds())
        writes = fold(profiles.read(updates.entities), updates).slice_writes()
        ends = {sources[partition]: end for partition, end in batch.end_offsets.items()}
        profiles.merge(writes, {}, dict.fromkeys(range(BUCKETS), ends))
        return profiles

    def send_erasure(self, user: str, ts_ms: int, event_id: str = "") -> Erasure:
        """Request the erasure of a user."""
        erasure = Erasure(event_id=event_id or f"g-{user}-{ts_ms}", ts_ms=ts_ms, user_id=user)
        self.send("erasures", [(user, to_json(erasure))])
        return erasure

    def read_erasures(self) -> Erasures:
        """The erasures that are on the topic now."""
        return Erasures(
            erasure for record in self.read_records("erasures") if (erasure := decode_erasure(record).erasure)
        )

    def find_differences(self, *kinds: str) -> list[str]:
        """Entities and buckets in which Redis differs from a clean pass; slices of other logs are ignored."""
        clean, store = self.recompute_profiles(*kinds), self.open_profiles()
        entities = sorted(clean.slices)
        stored = store.read(entities)
        sources = {source for ends in clean.offsets.values() for source in ends}
        own = [{source: slices[source] for source in slices if source in sources} for slices in stored]
        differing = [entity for entity, slices in zip(entities, own, strict=True) if slices != clean.slices[entity]]
        users = [entity for entity in {*entities, *clean.histories} if entity.startswith("user:")]
        histories, expected = store.read_histories(users), clean.read_histories(users)
        for user, stored_histories, clean_histories in zip(users, histories, expected, strict=True):
            own_histories = {source: record for source, record in stored_histories.items() if source in sources}
            differing += [f"history of {user}"] if own_histories != clean_histories else []
        logins = {(users[n], source): record for n, source, record in histories.logins if source in sources}
        clean_logins = {(users[n], source): record for n, source, record in expected.logins}
        differing += [f"logins of {user}" for (user, _), _ in logins.items() ^ clean_logins.items()]
        merged = store.read_offsets(sources)
        return differing + [f"merged of bucket {b}" for b, ends in clean.offsets.items() if merged[b] != ends]
