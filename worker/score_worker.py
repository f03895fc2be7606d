"""`python -m worker score`: one process of one lane, from its parts to its end."""

import gc
import logging
import sys
import threading
import time
from typing import Final

from contract.errors import StaleState, Unavailable
from contract.features.declaration import FeatureSet
from contract.features.encoder import Encoder
from contract.settings import Settings
from transport.log_reader import TopicTailer
from worker.catalogue.catalogue import Catalogue
from worker.catalogue.product_consumer import ProductConsumer
from worker.erasure.service import ErasureService
from worker.kafka.admin import KafkaAdmin
from worker.kafka.consumer import GroupConsumer
from worker.kafka.producer import TransactionalProducer
from worker.model.bundle_watcher import BundleWatcher
from worker.model.experiment import ActiveModels
from worker.ops import metrics
from worker.ops.health import HealthServer
from worker.ops.retry import Retry, StopRequested
from worker.ops.steps import PROFILER, StepMarker
from worker.pipeline.batch_pipeline import BatchPipeline, BatchRevoked
from worker.pipeline.lag import LagMonitor
from worker.pipeline.recovery import Recovery
from worker.recommend.popular_list_writer import PopularListWriter
from worker.records.lanes import LANES
from worker.redis.cluster import connect, connect_cache
from worker.scoring.browsing import BrowsingScorer
from worker.scoring.orders import OrderScorer
from worker.scoring.results import Scorer
from worker.state.answer_cache import AnswerCache
from worker.state.decision_store import DecisionStore
from worker.state.offsets import OffsetTracker
from worker.state.profile_store import open_profile_store
from worker.state.resources import KafkaClients, Stores
from worker.warmup import warm_up

log = logging.getLogger(__name__)
PERIODIC_INTERVAL_S: Final = 1.0
GC_INTERVAL_S: Final = 10.0
SWITCH_INTERVAL_S: Final = 0.001  # for which a batch waits for the thread that opens a bundle; 5 ms by default


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class ScoreWorker:
    """Scores one lane's events until `stop` is set."""

    def __init__(self, *, settings: Settings, features: FeatureSet, lane: str, stop: threading.Event) -> None:
        self._settings, self._lane, self._stop = settings, LANES[lane], stop
        self._retry = Retry(stop)
        self._offsets = OffsetTracker()
        self._lag = LagMonitor(settings.worker.stall_s)
        self._bundle_watcher = BundleWatcher(folder=settings.bundles, features=features)
        encoder = Encoder(features)
        self._catalogue = Catalogue(encoder, settings.worker.items_max)
        self._browsing_scorer = BrowsingScorer(lists=settings.lists, encoder=encoder, catalogue=self._catalogue)
        self._order_scorer = OrderScorer(settings=settings, encoder=encoder)
        self._products = ProductConsumer(
            tailer=TopicTailer(kafka=settings.kafka, topics=[settings.topics.products]), catalogue=self._catalogue
        )
        self._stores = open_stores(settings)
        self._erasure_service = ErasureService(
            settings=settings, lane=self._lane, stores=self._stores, offsets=self._offsets, retry=self._retry
        )
        self._popular_list_writer = PopularListWriter(
            answer_cache=self._stores.answer_cache,
            catalogue=self._catalogue,
            popularity=self._browsing_scorer.popularity,
            length=settings.lists.length,
        )
        self._has_started = False
        self._pending_models: ActiveModels | None = None

    @property
    def scorer(self) -> Scorer:
        return self._browsing_scorer if self._lane.name == "browsing" else self._order_scorer

    def run(self) -> None:
        """Work until asked to end; whatever ends it otherwise is raised."""
        worker = self._settings.worker
        health = HealthServer(
            port=worker.http_port, live=self._check_live, ready=self._check_ready, metrics=metrics.render
        )
        log.info("Lane %s, instance %s: health and metrics on port %d.", self._lane.name, worker.instance, health.port)
        try:
            self._prepare()
            pipeline = self._open_pipeline()
            try:
                self._run_loop(pipeline)
            finally:
                pipeline.close()
        except StopRequested as stopped:
            log.info("Ending before the batch in hand was committed; it will be read again. %s", stopped)
        finally:
            self._products.close()
            self._bundle_watcher.close()
            self._erasure_service.close()
            health.close()

    def _prepare(self) -> None:
        """What has to stand before the first event: Redis fit to remember, whom to forget, the catalogue, a model."""
        self._retry.call("redis", self._stores.profiles.client.check)
        self._erasure_service.open()
        while not self._erasure_service.load() and not self._stop.is_set():
            pass
        self._retry.call("kafka", self._products.open)
        while not self._products.is_ready and not self._stop.is_set():
            self._products.poll()
        self._poll_bundles(wait=True)
        self._activate()
        warm_up()
        gc.collect()
        gc.freeze()  # what stands now lives as long as the process: no collection needs to look at it again
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        gc.disable()  # a batch is thousands of objects in no cycle; between batches few are left to look at

    def _open_pipeline(self) -> BatchPipeline:
        settings, lane, step_marker = self._settings, self._lane, StepMarker()
        group = settings.kafka.group(lane.name)
        transactional_id = f"{group}-{settings.worker.instance}" if settings.kafka.transactions else None
        consumer = GroupConsumer(kafka=settings.kafka, group=group, instance=settings.worker.instance, skips_gaps=False)
        producer = TransactionalProducer(
            kafka=settings.kafka, transactional_id=transactional_id, retry=self._retry, step_marker=step_marker
        )
        recovery = Recovery(
            settings=settings,
            lane=lane,
            admin=KafkaAdmin(kafka=settings.kafka),
            profiles=self._stores.profiles,
            offsets=self._offsets,
            erasure_executor=self._erasure_service.executor,
        )
        pipeline = BatchPipeline(
            settings=settings,
            lane=lane,
            scorer=self.scorer,
            kafka_clients=KafkaClients(consumer=consumer, producer=producer),
            stores=self._stores,
            recovery=recovery,
            retry=self._retry,
            step_marker=step_marker,
        )
        pipeline.activate(*self._bundle_watcher.active)
        consumer.subscribe([settings.topics.topic_name(kind) for kind in lane.kinds], pipeline)
        return pipeline

    def _run_loop(self, pipeline: BatchPipeline) -> None:
        """Step after step; once a second what concerns no single batch."""
        self._has_started = True
        periodic_due_s = swap_due_s = gc_due_s = 0.0
        while not self._stop.is_set():
            pipeline.step(now_ms)
            with PROFILER("follow"):  # products and erasures
                self._products.poll()
                self._erasure_service.apply_pending(pipeline)
            now_s = time.monotonic()
            if now_s >= swap_due_s or self._bundle_watcher.has_loaded:
                swap_due_s = now_s + self._settings.worker.swap_poll_ms / 1000
                self._poll_bundles()
            if self._pending_models and self._is_prepared(self._pending_models):
                with PROFILER("swap"):
                    self._activate(pipeline)
            if now_s >= gc_due_s:
                gc_due_s = now_s + GC_INTERVAL_S
                with PROFILER("collect"):
                    gc.collect()
            if now_s >= periodic_due_s:
                periodic_due_s = now_s + PERIODIC_INTERVAL_S
                with PROFILER("house"):
                    self._run_periodic(pipeline, now_s)
        log.info("Asked to end; everything read is answered and remembered.")

    def _run_periodic(self, pipeline: BatchPipeline, now_s: float) -> None:
        self._lag.update(*pipeline.progress(), now_s)
        try:
            pipeline.advance()
            self._erasure_service.confirm(pipeline)
            if self._lane.name == "browsing":
                self._browsing_scorer.refresh_periodic(self._stores.profiles)
                self._popular_list_writer.write(now_ms())
        except (StaleState, BatchRevoked) as error:
            pipeline.recover(error)
        except Unavailable as error:
            log.warning("Housekeeping is left for later: %s", error)

    def _poll_bundles(self, *, wait: bool = False) -> None:
        self._pending_models = self._bundle_watcher.poll(wait=wait) or self._pending_models

    def _is_prepared(self, models: ActiveModels) -> bool:
        """Whether a line-up can answer without a pause; what items are to a model only browsing asks."""
        return self._lane.name != "browsing" or self._catalogue.prepare(*models.models)

    def _activate(self, pipeline: BatchPipeline | None = None) -> None:
        """Answer with the line-up that has come, if one has; without a protocol that is told later."""
        if self._pending_models:
            if pipeline:
                pipeline.activate(*self._pending_models)
            else:
                self.scorer.activate(*self._pending_models)
            self._bundle_watcher.mark_active()
            self._pending_models = None

    def _check_live(self) -> str | None:
        return self._lag.stall

    def _check_ready(self) -> str | None:
        return (
            None if self._has_started else f"Erasures, the catalogue and a model come first. {self._products.progress}"
        )


def open_stores(settings: Settings) -> Stores:
    """The profiles, claims and caches of these settings."""
    redis = settings.redis
    client = connect(redis)
    cache = connect_cache(redis, client)
    return Stores(
        profiles=open_profile_store(client, redis.prefix),
        decision_store=DecisionStore(client=client, prefix=redis.prefix, ttl_s=settings.lists.decision_ttl_s),
        answer_cache=AnswerCache(client=cache, prefix=redis.prefix, lists=settings.lists),
    )
