"""`python -m worker feedback`: the joiner process."""

import logging
import threading
import time
from typing import Final

from contract.profiles.erasures import Erasures
from contract.settings.reading import Settings
from transport.log_reader import TopicTailer
from worker.erasure.topic import ErasureConsumer
from worker.joiner.erasures import JoinerErasures
from worker.joiner.membership import JoinerMembership
from worker.joiner.pipeline import JoinerPipeline
from worker.kafka.consumer import GroupConsumer
from worker.kafka.producer import TransactionalProducer
from worker.ops import metrics
from worker.ops.health import HealthServer
from worker.ops.retry import Retry, StopRequested
from worker.ops.steps import StepMarker
from worker.pipeline.lag import LagMonitor

log = logging.getLogger(__name__)
PERIODIC_INTERVAL_S: Final = 1.0


class JoinerWorker:
    """Joins until `stop` is set. Several such processes share the topics by partition number."""

    def __init__(self, *, settings: Settings, stop: threading.Event) -> None:
        self._settings = settings
        self._stop = stop
        self._progress = LagMonitor(settings.worker.stall_s)
        self._not_ready_reason: str | None = "The joiner has no partitions yet."

    def run(self) -> None:
        """Run until `stop` is set; raises the error of a fatal failure."""
        worker = self._settings.worker
        health = HealthServer(
            port=worker.http_port, live=self._check_live, ready=self._check_ready, metrics=metrics.render
        )
        log.info("Joiner started, instance %s: health and metrics on port %d.", worker.instance, health.port)
        try:
            pipeline = self._open_pipeline()
            try:
                self._run_loop(pipeline)
            finally:
                pipeline.close()
        except StopRequested as stopped:
            log.info("Joiner stopped before the current batch was committed; it will be read again. %s", stopped)
        finally:
            health.close()

    def _open_pipeline(self) -> JoinerPipeline:
        kafka = self._settings.kafka
        group, instance = kafka.group("feedback"), self._settings.worker.instance
        # Eager, but it gives one joiner the same partitions of each topic, which joining by user needs.
        consumer = GroupConsumer(kafka=kafka, group=group, instance=instance, strategy="range")
        membership = JoinerMembership(consumer)
        retry, step_marker = Retry(self._stop, on_wait=membership.heartbeat), StepMarker()
        producer = TransactionalProducer(
            kafka=kafka,
            transactional_id=f"{group}-{instance}" if kafka.transactions else None,
            retry=retry,
            step_marker=step_marker,
        )
        erasures = JoinerErasures(
            ErasureConsumer(
                tailer=TopicTailer(kafka=kafka, topics=[self._settings.topics.erasures]), erasures=Erasures()
            )
        )
        pipeline = JoinerPipeline(
            settings=self._settings,
            consumer=consumer,
            membership=membership,
            producer=producer,
            retry=retry,
            step_marker=step_marker,
            erasures=erasures,
        )
        erasures.load(retry)  # before any partition is assigned
        consumer.subscribe(pipeline.topics, pipeline)
        return pipeline

    def _run_loop(self, pipeline: JoinerPipeline) -> None:
        """Join batch after batch; update lag and readiness once a second."""
        due_s = 0.0
        while not self._stop.is_set():
            pipeline.step()
            if (now_s := time.monotonic()) >= due_s:
                due_s = now_s + PERIODIC_INTERVAL_S
                self._progress.update(*pipeline.progress(), now_s)
                self._update_readiness(pipeline.not_ready_reason())
        log.info("Joiner stopped; all records read are joined, and open rows will be read again.")

    def _update_readiness(self, not_ready_reason: str | None) -> None:
        if not_ready_reason and not_ready_reason != self._not_ready_reason:
            log.warning("Not ready: %s", not_ready_reason)
        self._not_ready_reason = not_ready_reason

    def _check_live(self) -> str | None:
        return self._progress.stall

    def _check_ready(self) -> str | None:
        return self._not_ready_reason
