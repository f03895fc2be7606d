"""The environment of one run of a worker, or of a baseline, over a load that several runs share.

Input topics belong to the load; output topics, consumer group and Redis keys belong to the run, so that the records and
bytes of one run can be counted afterwards.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import redis

from contract.settings.servers import TopicSettings
from testkit.environment.kafka_log import KafkaLog
from testkit.environment.run_environment import TOPIC_KINDS, RunEnvironment

WRITTEN_KINDS: Final = ("scored", "decisions", "rankings", "dead_letters")
BATCH_MAX: Final = 4_000
LARGE_BATCHES: Final = {
    "SHOPSTREAM_WORKER__BATCH_MAX": str(BATCH_MAX),
    "SHOPSTREAM_WORKER__LATENCY_MS": "200",
    "SHOPSTREAM_LISTS__BATCH_SHARE": "0.15",
}  # for a backlog, where latency does not matter


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchEnvironment(RunEnvironment):
    """`load_prefix`: prefix of the topics of `shared_kinds`. `overrides`: further environment variables."""

    load_prefix: str
    shared_kinds: tuple[str, ...]
    overrides: Mapping[str, str]

    @property
    def topics(self) -> TopicSettings:
        """The topics of the load and the run's own."""
        defaults = TopicSettings()
        return TopicSettings.model_validate(
            {
                kind: (self.load_prefix if kind in self.shared_kinds else self.prefix) + defaults.topic_name(kind)
                for kind in TOPIC_KINDS
            }
        )

    def worker_command(self, lane: str) -> Sequence[str]:
        return [sys.executable, "-m", "worker", "score", "--lane", lane, "--profile"]

    def env_variables(self) -> Mapping[str, str]:
        """Variables of a worker with default batches and the shop's own rules."""
        variables: dict[str, str] = dict(RunEnvironment.env_variables(self))
        del variables["SHOPSTREAM_WORKER__BATCH_MAX"], variables["SHOPSTREAM_RULES"]
        return variables | dict(self.overrides)

    def count_written(self) -> dict[str, list[int]]:
        """Kind -> number of written records, and their bytes."""
        log, counts = KafkaLog(bootstrap=self.kafka.bootstrap), dict[str, list[int]]()
        for kind in WRITTEN_KINDS:
            sizes = [
                len(record.key or b"") + len(record.value or b"") for record in log.read(self.topics.topic_name(kind))
            ]
            counts[kind] = [len(sizes), sum(sizes)]
        return counts


def read_redis_bytes(port: int) -> tuple[int, int]:
    """Bytes that Redis has received and sent so far."""
    stats: Any = redis.Redis(port=port).info("stats")
    return int(stats["total_net_input_bytes"]), int(stats["total_net_output_bytes"])
