"""`python -m worker score`: the process of one lane, from start-up to shutdown."""

import gc
import logging
import sys
import threading
import time
from typing import Final

from contract.errors import StaleState, Unavailable
from contract.features.declaration import FeatureSet
from contract.features.encoder import Encoder
from contract.settings.reading import Settings
from transport.log_reader import TopicTailer
from worker.assembly import assemble
from worker.catalogue.catalogue import Catalogue
from worker.catalogue.product_consumer import ProductConsumer
from worker.model.bundle_watcher import BundleWatcher
from worker.model.experiment import ActiveModels
from worker.ops import metrics
from worker.ops.health import HealthServer
from worker.ops.retry import StopRequested
from worker.ops.steps import PROFILER
from worker.pipeline.batch_pipeline import BatchPipeline
from worker.pipeline.lag import LagMonitor
from worker.pipeline.membership import BatchRevoked
from worker.records.lanes import LANES
from worker.scoring.handlers import HANDLERS
from worker.scoring.scorer import LaneScorer, ScoringResources
from worker.state.resources import open_stores
from worker.state.settings_record import report_changed_settings
from worker.warmup import warm_up

log = logging.getLogger(__name__)
PERIODIC_INTERVAL_S: Final = 1.0
GC_INTERVAL_S: Final = 10.0
SWITCH_INTERVAL_S: Final = 0.001  # a batch waits this long for the GIL while a bundle loads; 5 ms by default


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class ScoreWorker:
    """Scores one lane's events until `stop` is set."""

    def __init__(self, *, settings: Settings, features: FeatureSet, lane: str, stop: threading.Event) -> None:
        self._settings, self._lane, self._stop = settings, LANES[lane], stop
        self._lag = LagMonitor(settings.worker.stall_s)
        self._bundle_watcher = BundleWatcher(folder=settings.bundles, features=features)
        encoder = Encoder(features)
        catalogue = Catalogue(encoder, settings.worker.items_max)
        self._products = ProductConsumer(
            tailer=TopicTailer(kafka=settings.kafka, topics=[settings.topics.products]), catalogue=catalogue
        )
        handlers = HANDLERS[lane]
        stores = open_stores(settings, handlers.answer_kinds)
        self._scorer = LaneScorer(
            handlers,
            ScoringResources(settings=settings, encoder=encoder, catalogue=catalogue, answer_cache=stores.answer_cache),
        )
        self._worker = assemble(settings, self._lane, stop, scorer=self._scorer, stores=stores)
        self._has_started = False
        self._pending_models: ActiveModels | None = None

    def run(self) -> None:
        """Work until `stop` is set; whatever else ends the work is raised."""
        worker = self._settings.worker
        health = HealthServer(
            port=worker.http_port, live=self._check_live, ready=self._check_ready, metrics=metrics.render
        )
        log.info(
            "Score worker started, lane %s, instance %s: health and metrics on port %d.",
            self._lane.name,
            worker.instance,
            health.port,
        )
        try:
            self._prepare()
            pipeline = self._open_pipeline()
            try:
                self._run_loop(pipeline)
            finally:
                pipeline.close()
        except StopRequested as stopped:
            log.info("Stopping before the batch in flight was committed; it will be read again. %s", stopped)
        finally:
            self._products.close()
            self._bundle_watcher.close()
            self._worker.close()
            health.close()

    def _prepare(self) -> None:
        """Before the first event: check Redis, read erasures and the catalogue, load a model, compile."""
        retry = self._worker.retry
        client = self._worker.stores.profiles.client
        retry.call("redis", client.check)
        retry.call("redis", lambda: report_changed_settings(client, self._settings))
        self._worker.load_erasures()
        retry.call("kafka", self._products.open)
        while not self._products.is_ready and not self._stop.is_set():
            self._products.poll()
        self._poll_bundles(wait=True)
        if self._pending_models:
            self._scorer.activate(*self._pending_models)
            self._finish_activation()
        warm_up()
        gc.collect()
        gc.freeze()  # objects of the start-up live as long as the process: no collection need visit them
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        gc.disable()  # a batch makes thousands of objects in no cycle; collections run between batches

    def _open_pipeline(self) -> BatchPipeline:
        pipeline = self._worker.open_pipeline()
        pipeline.activate(*self._bundle_watcher.active)
        pipeline.consumer.subscribe([self._settings.topics.topic_name(kind) for kind in self._lane.kinds], pipeline)
        return pipeline

    def _run_loop(self, pipeline: BatchPipeline) -> None:
        """Batch after batch; between batches products, erasures, bundles, and once a second the periodic tasks."""
        self._has_started = True
        periodic_due_s = swap_due_s = gc_due_s = 0.0
        while not self._stop.is_set():
            pipeline.step(now_ms)
            with PROFILER("follow"):  # products and erasures
                self._products.poll()
                if self._worker.erasure_service:
                    self._worker.erasure_service.apply_pending(pipeline)
            now_s = time.monotonic()
            if now_s >= swap_due_s or self._bundle_watcher.has_loaded:
                swap_due_s = now_s + self._settings.worker.swap_poll_ms / 1000
                self._poll_bundles()
            if self._pending_models and self._scorer.prepare(self._pending_models):
                with PROFILER("swap"):
                    pipeline.activate(*self._pending_models)
                    self._finish_activation()
            if now_s >= gc_due_s:
                gc_due_s = now_s + GC_INTERVAL_S
                with PROFILER("collect"):
                    gc.collect()
            if now_s >= periodic_due_s:
                periodic_due_s = now_s + PERIODIC_INTERVAL_S
                with PROFILER("periodic"):
                    self._run_periodic(pipeline, now_s)
        log.info("Stopping as requested; everything read is answered and merged.")

    def _run_periodic(self, pipeline: BatchPipeline, now_s: float) -> None:
        self._lag.update(*pipeline.progress(), now_s)
        try:
            pipeline.advance()
            if self._worker.erasure_service:
                self._worker.erasure_service.confirm(pipeline)
            self._scorer.run_periodic(self._worker.stores.profiles, now_ms())
        except (StaleState, BatchRevoked) as error:
            pipeline.recover(error)
        except Unavailable as error:
            log.warning("Periodic tasks are postponed, a server is unavailable: %s", error)

    def _poll_bundles(self, *, wait: bool = False) -> None:
        self._pending_models = self._bundle_watcher.poll(wait=wait) or self._pending_models

    def _finish_activation(self) -> None:
        self._bundle_watcher.mark_active()
        self._pending_models = None

    def _check_live(self) -> str | None:
        return self._lag.stall

    def _check_ready(self) -> str | None:
        if self._has_started:
            return None
        return f"Starting: erasures, the catalogue and a model are loaded first. {self._products.progress}"
