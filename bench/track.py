"""A track: one run of a worker, or of what it is compared with, over a load that several runs share.

What is read lies on topics of the load; what is written, the group and the keys in Redis are the run's own, so that
what one run has moved can be counted afterwards.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import redis

from bench.kafka_log import KafkaLog
from bench.stage import TOPICS, Stage
from contract.settings import TopicSettings

WRITTEN: Final = ("scored", "decisions", "rankings", "dead_letters")


@dataclass(frozen=True, slots=True, kw_only=True)
class Track(Stage):
    """`load`: what the topics of the shared kinds begin with. `told`: further settings, by their environment names."""

    load: str
    shared: tuple[str, ...]
    told: Mapping[str, str]

    @property
    def topics(self) -> TopicSettings:
        """Those of the load, and the run's own."""
        plain = TopicSettings()
        return TopicSettings.model_validate(
            {kind: (self.load if kind in self.shared else self.prefix) + plain.topic_name(kind) for kind in TOPICS}
        )

    def command(self, lane: str) -> Sequence[str]:
        return [sys.executable, "-m", "worker", "score", "--lane", lane, "--profile"]

    def environment(self) -> Mapping[str, str]:
        """A worker as anybody runs it, with no rules but the shop's."""
        usual: dict[str, str] = dict(Stage.environment(self))
        del usual["SHOPSTREAM_WORKER__BATCH_MAX"], usual["SHOPSTREAM_RULES"]
        return usual | dict(self.told)

    def written(self) -> dict[str, list[int]]:
        """Topic -> how many records were written to it, and their bytes."""
        log, found = KafkaLog(bootstrap=self.kafka.bootstrap), dict[str, list[int]]()
        for kind in WRITTEN:
            sizes = [len(one.key or b"") + len(one.value or b"") for one in log.read(self.topics.topic_name(kind))]
            found[kind] = [len(sizes), sum(sizes)]
        return found


def redis_bytes(port: int) -> tuple[int, int]:
    """What Redis has received and sent so far."""
    stats: Any = redis.Redis(port=port).info("stats")
    return int(stats["total_net_input_bytes"]), int(stats["total_net_output_bytes"])
