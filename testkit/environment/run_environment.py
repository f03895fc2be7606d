"""The environment of a run: servers, names that no other run uses, and the settings of its workers."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from contract.settings.servers import KafkaSettings as KafkaSettings
from contract.settings.servers import TopicSettings
from devservers.redis_server import RedisServer
from testkit.checkout import CHECKOUT_VARIABLES

TOPIC_KINDS: Final = tuple(TopicSettings().names_by_kind())
BATCH_MAX: Final = 50  # small, so that few events make many batches to be killed in
# Reasons reveal the profile's counts almost exactly, so a decision made again from another state differs.
DISCRIMINATING_THRESHOLDS: Final = {
    "card_orders_count_1d": range(40),
    "device_orders_count_1d": range(40),
    "order_user_orders_count_1d": range(20),
    "device_first_links": range(8),
}
RULES: Final = [
    {"feature": feature, "above": above, "action": "review", "reason": f"{feature} above {above}"}
    for feature, thresholds in DISCRIMINATING_THRESHOLDS.items()
    for above in thresholds
]


class KafkaServer(Protocol):
    """A running broker."""

    @property
    def bootstrap(self) -> str:
        """Its address."""

    def create_topics(self, partitions: Mapping[str, int], config: Mapping[str, str] | None = None) -> None:
        """Create topics, each with its number of partitions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnvironment:
    """Running servers and the names of one run on them; `folder` is for logs, step files and bundles."""

    kafka: KafkaServer
    redis: RedisServer
    folder: Path
    prefix: str = ""
    transactions: bool = True

    @property
    def topics(self) -> TopicSettings:
        """The topics of this run."""
        defaults = TopicSettings()
        return TopicSettings.model_validate({kind: self.prefix + defaults.topic_name(kind) for kind in TOPIC_KINDS})

    @property
    def kafka_settings(self) -> KafkaSettings:
        """The workers' Kafka settings."""
        return KafkaSettings(bootstrap_servers=self.kafka.bootstrap, group_prefix=f"{self.prefix}shopstream")

    @property
    def redis_prefix(self) -> str:
        return f"{self.prefix}shop:"

    @property
    def bundles(self) -> Path:
        """The folder of bundles; empty unless a run publishes some."""
        return self.folder / "bundles"

    def group_id(self, lane: str) -> str:
        return f"{self.kafka_settings.group_prefix}-{lane}"

    def create_topics(self) -> None:
        """Create every topic, without retention by time: some records have old timestamps."""
        names = {self.topics.topic_name(kind): self.topics.partitions for kind in TOPIC_KINDS}
        self.kafka.create_topics(names, {"retention.ms": "-1"})

    def worker_command(self, lane: str) -> Sequence[str]:
        return [sys.executable, "-m", "worker", "score", "--lane", lane]

    def env_variables(self) -> Mapping[str, str]:
        """Environment variables of a worker of this run; without a bundle, rules and popular items answer."""
        topics = {f"SHOPSTREAM_TOPICS__{kind.upper()}": name for kind, name in self.topics.model_dump().items()}
        return {
            **{name: str(value) for name, value in topics.items()},
            **CHECKOUT_VARIABLES,
            "SHOPSTREAM_BUNDLES": str(self.bundles),
            "SHOPSTREAM_FEEDBACK__STORE": str(self.folder / f"{self.prefix}joiner-rows"),
            "SHOPSTREAM_KAFKA__BOOTSTRAP_SERVERS": self.kafka.bootstrap,
            "SHOPSTREAM_KAFKA__GROUP_PREFIX": self.kafka_settings.group_prefix,
            "SHOPSTREAM_KAFKA__TRANSACTIONS": str(self.transactions).lower(),
            "SHOPSTREAM_REDIS__URL": self.redis.url,
            "SHOPSTREAM_REDIS__PREFIX": self.redis_prefix,
            "SHOPSTREAM_WORKER__BATCH_MAX": str(BATCH_MAX),
            "SHOPSTREAM_WORKER__HTTP_PORT": "0",
            "SHOPSTREAM_RULES": json.dumps(RULES),
        }
