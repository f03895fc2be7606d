"""Wires one score worker of one lane: consumer, producer, recovery, pipeline and erasure, in this one place.

The process (`worker.score_worker`), tests and fault benches run the same wiring, each with its own scorer and stores.
"""

import threading
from dataclasses import dataclass

from contract.profiles.erasures import NO_ERASURES
from contract.settings.reading import Settings
from worker.erasure.service import ErasureService
from worker.group.consumer import GroupConsumer
from worker.group.consumer_client import gather_records
from worker.kafka.admin import KafkaAdmin
from worker.kafka.producer import TransactionalProducer
from worker.ops.retry import Retry
from worker.ops.steps import StepMarker
from worker.pipeline.batch_pipeline import BatchPipeline
from worker.pipeline.membership import GroupMembership, KafkaClients
from worker.pipeline.recovery import Recovery
from worker.records.lanes import Lane
from worker.scoring.scorer import Scorer
from worker.state.offsets import OffsetTracker
from worker.state.resources import Stores


@dataclass(frozen=True, slots=True, kw_only=True)
class AssembledWorker:
    """The parts of a worker before it enters its group; `retry` serves until the pipeline is open."""

    settings: Settings
    lane: Lane
    scorer: Scorer
    stores: Stores
    offsets: OffsetTracker
    retry: Retry
    step_marker: StepMarker
    erasure_service: ErasureService | None

    def load_erasures(self) -> None:
        """Read every erasure that is on the topic, before the first event is answered; a stop ends it early."""
        if self.erasure_service:
            self.erasure_service.open()
            while not self.erasure_service.load() and not self.retry.stop.is_set():
                pass

    def open_pipeline(self) -> BatchPipeline:
        """Connect to Kafka and fence a former process of this instance; the consumer has still to subscribe."""
        settings, lane = self.settings, self.lane
        group, instance = settings.kafka.group(lane.name), settings.worker.instance
        kafka = gather_records(settings.kafka, lane.gathering_ms)
        consumer = GroupConsumer(kafka=kafka, group=group, instance=instance, skips_gaps=False)
        membership = GroupMembership(consumer)
        retry = Retry(self.retry.stop, on_wait=membership.heartbeat, wait_max_s=self.retry.wait_max_s)
        producer = TransactionalProducer(
            kafka=settings.kafka,
            transactional_id=f"{group}-{instance}" if settings.kafka.transactions else None,
            retry=retry,
            step_marker=self.step_marker,
        )
        return BatchPipeline(
            settings=settings,
            lane=lane,
            scorer=self.scorer,
            kafka_clients=KafkaClients(consumer=consumer, membership=membership, producer=producer),
            stores=self.stores,
            recovery=self._build_recovery(),
            retry=retry,
            step_marker=self.step_marker,
        )

    def close(self) -> None:
        if self.erasure_service:
            self.erasure_service.close()

    def _build_recovery(self) -> Recovery:
        executor = self.erasure_service.executor if self.erasure_service else None
        return Recovery(
            settings=self.settings,
            lane=self.lane,
            admin=KafkaAdmin(kafka=self.settings.kafka),
            profiles=self.stores.profiles,
            offsets=self.offsets,
            erasures=executor.erasures if executor else NO_ERASURES,
            apply_erasures_before_start=executor.apply_before_start if executor else None,
        )


def assemble(
    settings: Settings,
    lane: Lane,
    stop: threading.Event,
    *,
    scorer: Scorer,
    stores: Stores,
    step_marker: StepMarker | None = None,
    wait_max_s: float = 5.0,
    erases: bool = True,
) -> AssembledWorker:
    """A worker of these settings. `wait_max_s`: the longest backoff. Without `erases` it knows no erasure."""
    offsets, retry = OffsetTracker(), Retry(stop, wait_max_s=wait_max_s)
    erasure_service = None
    if erases:
        erasure_service = ErasureService(settings=settings, lane=lane, stores=stores, offsets=offsets, retry=retry)
        stores.fence.erasures = erasure_service.executor.erasures
    return AssembledWorker(
        settings=settings,
        lane=lane,
        scorer=scorer,
        stores=stores,
        offsets=offsets,
        retry=retry,
        step_marker=step_marker or StepMarker(),
        erasure_service=erasure_service,
    )
