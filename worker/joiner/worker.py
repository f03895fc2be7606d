"""`python -m worker feedback`: the joiner process."""

import logging
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from contract.folders import check_writable
from contract.profiles.erasures import Erasures
from contract.settings.reading import Settings
from transport.client_log import check_options
from transport.log_reader import TopicTailer
from worker.doctor.examination import start_checks
from worker.doctor.topic_checks import find_different_partitions
from worker.erasure.topic import ErasureConsumer
from worker.group.consumer import GroupConsumer
from worker.joiner.decoding import JOINED_EVENTS
from worker.joiner.dedup_loader import DedupLoader
from worker.joiner.erasures import JoinerErasures
from worker.joiner.membership import JoinerMembership
from worker.joiner.pipeline import KINDS, JoinerPipeline, JoinerRecovery
from worker.joiner.store.store_folder import StoreFolder
from worker.kafka.admin import KafkaAdmin
from worker.kafka.producer import TransactionalProducer
from worker.kafka.topic_owner import TopicOwnership
from worker.ops.health import HealthServer
from worker.ops.retry import Retry, StopRequested
from worker.ops.steps import StepMarker
from worker.probes.group_remedy import GroupRemedy
from worker.probes.progress import Progress
from worker.probes.watchdog import Watchdog
from worker.records.intake import make_event_readers

log = logging.getLogger(__name__)
PERIODIC_INTERVAL_S: Final = 1.0
WRITTEN_KINDS: Final = ("feedback", "judgements")
NEEDED_KINDS: Final = (*KINDS, "erasures", *WRITTEN_KINDS)


class JoinerWorker:
    """Joins until `stop` is set. Several such processes share the topics by partition number."""

    def __init__(self, *, settings: Settings, stop: threading.Event) -> None:
        check_options(settings.kafka)
        if settings.feedback.store:
            check_writable(Path(settings.feedback.store), "feedback.store")
        self._settings = settings
        self._stop = stop
        event_topics = settings.event_topics()
        self._joined_topics = [settings.topics.scored, *event_topics.names_of(JOINED_EVENTS)]
        self._step_marker = StepMarker()
        self._progress = Progress(step=lambda: self._step_marker.current)
        self._watchdog = Watchdog(
            settings=settings,
            group=settings.kafka.group("feedback"),
            topics=settings.topics.names_of(NEEDED_KINDS) | event_topics.name_added(JOINED_EVENTS),
            group_topics=self._joined_topics,
            followed_topics=settings.topics.names_of(["erasures"]),
            progress=self._progress,
            check_topics=self._explain_different_partitions,
        )
        self._ownership = TopicOwnership(kafka=settings.kafka, topics=settings.topics.names_of(WRITTEN_KINDS).values())
        self._not_ready_reason: str | None = "The joiner has no partitions yet."

    def run(self) -> None:
        """Run until `stop` is set; raises the error of a fatal failure."""
        worker = self._settings.worker
        health = HealthServer(
            port=worker.http_port, live=self._check_live, ready=self._check_ready, metrics=self._watchdog.render_metrics
        )
        log.info("Joiner started, instance %s: health and metrics on port %d.", worker.instance, health.port)
        self._watchdog.start()
        start_checks(self._settings, NEEDED_KINDS, uses_redis=False)
        try:
            Retry(self._stop).call("kafka", self._ownership.claim)
            pipeline = self._open_pipeline()
            try:
                self._run_loop(pipeline)
            finally:
                pipeline.close()
        except StopRequested as stopped:
            log.info("Joiner stopped before the current batch was committed; it will be read again. %s", stopped)
        finally:
            self._ownership.close()
            self._watchdog.close()
            health.close()

    def _open_pipeline(self) -> JoinerPipeline:
        kafka = self._settings.kafka
        group, instance = kafka.group("feedback"), self._settings.worker.instance
        # Eager, but it gives one joiner the same partitions of each topic, which joining by user needs.
        consumer = GroupConsumer(kafka=kafka, group=group, instance=instance, strategy="range")
        membership = JoinerMembership(consumer)
        retry = Retry(self._stop, on_wait=membership.heartbeat)
        producer = TransactionalProducer(
            kafka=kafka,
            transactional_id=f"{group}-{instance}" if kafka.transactions else None,
            retry=retry,
            step_marker=self._step_marker,
        )
        stores = None
        if self._settings.feedback.store:
            stores = StoreFolder(settings=self._settings, fetch_topic_ids=KafkaAdmin(kafka=kafka).fetch_topic_ids)
        loader = DedupLoader(settings=self._settings, on_poll=membership.heartbeat, on_records=self._progress.touch)
        erasures = ErasureConsumer(
            tailer=TopicTailer(kafka=kafka, topics=[self._settings.topics.erasures]),
            erasures=Erasures(),
            reader=make_event_readers(self._settings)["erasures"],
        )
        self._progress.followed = lambda: erasures.positions
        joiner_erasures = JoinerErasures(erasures)
        pipeline = JoinerPipeline(
            settings=self._settings,
            consumer=consumer,
            membership=membership,
            producer=producer,
            retry=retry,
            step_marker=self._step_marker,
            recovery=JoinerRecovery(outputs=loader, stores=stores),
            erasures=joiner_erasures,
        )
        joiner_erasures.load(retry)  # before any partition is assigned
        consumer.subscribe(pipeline.topics, pipeline)
        return pipeline

    def _run_loop(self, pipeline: JoinerPipeline) -> None:
        """Join batch after batch; update lag and readiness once a second."""
        remedy, due_s = GroupRemedy(self._watchdog, asks_for_rebalance=False), 0.0
        while not self._stop.is_set():
            pipeline.step()
            if (now_s := time.monotonic()) >= due_s:
                due_s = now_s + PERIODIC_INTERVAL_S
                pipeline.publish_progress(self._progress)
                pipeline.name_held_back()
                remedy.apply(pipeline.consumer)
                self._update_readiness(pipeline.not_ready_reason())
        log.info("Joiner stopped; all records read are joined, and open rows will be read again.")

    def _update_readiness(self, not_ready_reason: str | None) -> None:
        if not_ready_reason and not_ready_reason != self._not_ready_reason:
            log.warning("Not ready: %s", not_ready_reason)
        self._not_ready_reason = not_ready_reason

    def _explain_different_partitions(self, partition_counts: Mapping[str, int]) -> str | None:
        counts = {name: partition_counts[name] for name in self._joined_topics}
        findings = find_different_partitions(counts, self._settings.kafka.bootstrap_servers)
        return "; ".join(f"{finding.subject}: {finding.text} {finding.command}" for finding in findings) or None

    def _check_live(self) -> str | None:
        return self._watchdog.find_dead()

    def _check_ready(self) -> str | None:
        return self._watchdog.find_unready() or self._not_ready_reason
