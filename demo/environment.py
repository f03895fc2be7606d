"""The environment of the demo: embedded servers, a folder, clients, and the variables that child processes need."""

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import redis

from contract.events.model import KINDS
from contract.messages import Recommendations, read_recommendations
from contract.settings.reading import Settings, read_settings
from demo.output_consumer import OutputConsumer
from demo.processes import ProcessManager
from demo.producer import RecordProducer
from demo.recommendation_reader import RecommendationReader
from devservers.embedded import PARTITIONS, EmbeddedKafka, EmbeddedValkey

DAY_S: Final = 86_400
OUTPUT_KINDS: Final = ("decisions", "rankings", "classifications", "scored", "feedback", "erased", "dead_letters")


class DemoEnvironment:
    """Everything that outlives one step of the demo; `stack` closes it all, processes before servers."""

    def __init__(self, stack: ExitStack) -> None:
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shopstream-demo-")))
        kafka = stack.enter_context(EmbeddedKafka())
        valkey = stack.enter_context(EmbeddedValkey())
        # This process reads the same settings as its child processes.
        os.environ.update(environment_variables(kafka.bootstrap, valkey.url, self.folder))
        self.settings: Settings = read_settings()[0]
        self.topics = [self.settings.topics.topic_name(kind) for kind in (*KINDS, *OUTPUT_KINDS)]
        kafka.create_topics(dict.fromkeys(self.topics, PARTITIONS))
        self.producer = RecordProducer(kafka=self.settings.kafka, topics=self.settings.topics)
        self.outputs = OutputConsumer(kafka=self.settings.kafka, topics=self.settings.topics)
        stack.callback(self.outputs.close)
        self.redis = redis.Redis.from_url(valkey.url)
        stack.callback(self.redis.close)
        self.recommendation_reader = RecommendationReader(self.redis, self.settings.redis.prefix)
        self.processes = stack.enter_context(ProcessManager(folder=self.folder))

    @property
    def bundles(self) -> Path:
        return self.settings.bundles

    def read_list(self, user_id: str) -> Recommendations | None:
        """A user's list with all its fields; a web shop reads fewer of them (`demo.recommendation_reader`)."""
        value = self.redis.get(f"{self.settings.redis.prefix}rec:{user_id}")
        return read_recommendations(value) if isinstance(value, bytes) else None


def environment_variables(bootstrap: str, redis_url: str, folder: Path) -> dict[str, str]:
    """Settings that differ from `shop.toml`: addresses, features the embedded Kafka lacks, and shorter windows.

    Both Redis addresses are set, so that an inherited setting cannot point the demo at another server.
    """
    values = {
        "KAFKA__BOOTSTRAP_SERVERS": bootstrap,
        "KAFKA__TOPIC_IDS": "false",
        "REDIS__URL": redis_url,
        "REDIS__CACHE_URL": redis_url,
        "TOPICS__PARTITIONS": str(PARTITIONS),
        "BUNDLES": str(folder / "bundles"),
        "FEEDBACK__STORE": str(folder / "joiner-rows"),
        "FEEDBACK__IMPRESSION_WAIT_S": str(3 * DAY_S),
        "FEEDBACK__FRAUD_WINDOW_S": str(DAY_S),
        # Simulated hours pass while a worker scores a batch, so an impression may arrive after its click.
        "FEEDBACK__GRACE_S": str(DAY_S),
        # With few labelled orders, one confident error can cost half of a task's gain.
        "TRAINING__MARGIN": "0.5",
        # Lists sell far more than the pages of the history, which are all that the first model knows.
        "TRAINING__JUMP": "4",
    }
    return {f"SHOPSTREAM_{name}": value for name, value in values.items()}
