"""One run of a verification or a rebuild over a test's servers."""

import threading
import time
from typing import Any

from contract.profiles.record import FAMILIES
from tests.worker.environment import WorkerEnvironment
from transport.log_reader import LogReader
from transport.record_reader import RecordReader
from worker.kafka.admin import KafkaAdmin
from worker.maintenance.comparison import VerificationResult
from worker.maintenance.rebuild import Rebuild, RebuildResult
from worker.maintenance.verification import EntitySample, Verification
from worker.ops.retry import Retry
from worker.redis.client import RedisClient
from worker.state.generations import Generations

NOW_MS = time.time_ns() // 1_000_000


def run_verification(
    stage: WorkerEnvironment,
    sample: EntitySample | None = None,
    *,
    reader: LogReader | None = None,
    now_ms: int = NOW_MS,
) -> VerificationResult:
    reader = reader or LogReader(kafka=stage.settings.kafka)
    try:
        return open_verification(stage, reader, sample).run(now_ms)
    finally:
        reader.close()


def open_verification(stage: WorkerEnvironment, reader: LogReader, sample: EntitySample | None = None) -> Verification:
    settings = stage.settings
    return Verification(
        reader=reader,
        admin=KafkaAdmin(kafka=settings.kafka),
        profiles=stage.open_profiles(),
        record_reader=RecordReader(settings.event_topics()),
        kinds=FAMILIES,
        sample=sample or EntitySample(),
        entity_kinds=settings.entity_kinds(),
    )


def run_rebuild(
    stage: WorkerEnvironment, *, reader: LogReader | None = None, client: RedisClient | None = None, **more: Any
) -> RebuildResult:
    reader = reader or LogReader(kafka=stage.settings.kafka)
    try:
        return Rebuild(
            reader=reader,
            admin=KafkaAdmin(kafka=stage.settings.kafka),
            client=client or stage.redis,
            prefix=stage.prefix,
            record_reader=RecordReader(stage.settings.event_topics()),
            retry=Retry(threading.Event(), wait_max_s=0.1),
            entity_kinds=stage.settings.entity_kinds(),
            **more,
        ).run()
    finally:
        reader.close()


def serving_generation(stage: WorkerEnvironment) -> str:
    return Generations(client=stage.redis, prefix=stage.prefix).read_serving()
