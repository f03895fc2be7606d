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
from contract.object_folder import open_folder
from contract.settings.reading import Settings
from transport.client_log import check_options
from transport.log_reader import TopicTailer
from transport.record_reader import open_record_reader
from transport.records import TopicPartition
from worker.assembly import assemble
from worker.catalogue.catalogue import Catalogue
from worker.catalogue.product_consumer import ProductConsumer
from worker.doctor.examination import start_checks
from worker.kafka.topic_owner import TopicOwnership
from worker.model.bundle_watcher import BundleWatcher
from worker.model.experiment import ActiveModels
from worker.ops import metrics
from worker.ops.health import HealthServer
from worker.ops.retry import Retry, StopRequested
from worker.ops.steps import PROFILER
from worker.pipeline.batch_pipeline import BatchPipeline
from worker.pipeline.membership import BatchRevoked
from worker.probes.group_remedy import GroupRemedy
from worker.probes.progress import Progress
from worker.probes.watchdog import Watchdog
from worker.records.intake import make_event_readers
from worker.records.lanes import LANES, Lane
from worker.scoring.handlers import HANDLERS
from worker.scoring.scorer import LaneHandlers, LaneScorer, ScoringResources
from worker.state.resources import open_stores
from worker.state.settings_record import report_changed_settings
from worker.state.user_histories import UserHistories
from worker.warmup import warm_up

log = logging.getLogger(__name__)
PERIODIC_INTERVAL_S: Final = 1.0
GC_INTERVAL_S: Final = 10.0
FOLLOWED_KINDS: Final = ("products", "erasures")  # read by every worker, outside its group
SWITCH_INTERVAL_S: Final = 0.001  # a batch waits this long for the GIL while a bundle loads; 5 ms by default


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def list_answer_kinds(handlers: LaneHandlers) -> list[str]:
    """The kinds of topics that only one shop may write."""
    return [*(kind.topic for kind in handlers.answer_kinds if kind.topic), "scored"]


def list_written_kinds(lane: Lane, handlers: LaneHandlers) -> list[str]:
    """The kinds of topics that a lane writes."""
    confirmations = ["erased"] if lane.confirmed_kinds else []
    return [*list_answer_kinds(handlers), "dead_letters", *confirmations]


def count_absent(attribute: str, reason: str, events: int) -> None:
    metrics.ATTRIBUTES_ABSENT.labels(attribute, reason).inc(events)


class ScoreWorker:
    """Scores one lane's events until `stop` is set."""

    def __init__(self, *, settings: Settings, features: FeatureSet, lane: str, stop: threading.Event) -> None:
        check_options(settings.kafka)
        self._settings, self._lane, self._stop = settings, LANES[lane], stop
        handlers = HANDLERS[lane]
        self._bundle_watcher = BundleWatcher(
            folder=open_folder(settings.bundle_store or settings.bundles),
            features=features,
            graphs=handlers.needed_graphs,
            index_from_items=settings.lists.index_from_items if handlers.build_refresher else 0,
        )
        encoder = Encoder(features, count_absent)
        self._event_topics, readers = settings.event_topics(), make_event_readers(settings)
        catalogue = Catalogue(encoder, settings.worker.items_max)
        self._products = ProductConsumer(
            tailer=TopicTailer(kafka=settings.kafka, topics=self._event_topics.names_of(["products"])),
            catalogue=catalogue,
            reader=readers["products"],
            placeholders=settings.intake.folded_placeholders,
            record_reader=open_record_reader(settings, readers, Retry(stop).call),
        )
        stores = open_stores(settings, handlers.answer_kinds)
        self._scorer = LaneScorer(
            handlers,
            ScoringResources(
                settings=settings,
                encoder=encoder,
                catalogue=catalogue,
                answer_cache=stores.answer_cache,
                user_histories=UserHistories(stores.profiles),
                people=stores.people,
            ),
        )
        self._worker = assemble(settings, self._lane, stop, scorer=self._scorer, stores=stores)
        self._progress = Progress(followed=self._collect_followed, step=lambda: self._worker.step_marker.current)
        self._needed_kinds = [*self._lane.kinds, *FOLLOWED_KINDS, *list_written_kinds(self._lane, handlers)]
        self._watchdog = Watchdog(
            settings=settings,
            group=settings.kafka.group(lane),
            topics=settings.topics.names_of(self._needed_kinds) | self._event_topics.name_added(self._needed_kinds),
            group_topics=self._event_topics.names_of(self._lane.kinds),
            followed_topics=settings.topics.names_of(FOLLOWED_KINDS) | self._event_topics.name_added(FOLLOWED_KINDS),
            progress=self._progress,
        )
        self._ownership = TopicOwnership(
            kafka=settings.kafka, topics=settings.topics.names_of(list_answer_kinds(handlers)).values()
        )
        self._has_started = False
        self._remedy = GroupRemedy(self._watchdog)
        self._pending_models: ActiveModels | None = None

    def run(self) -> None:
        """Work until `stop` is set; whatever else ends the work is raised."""
        worker = self._settings.worker
        health = HealthServer(
            port=worker.http_port, live=self._check_live, ready=self._check_ready, metrics=self._watchdog.render_metrics
        )
        log.info(
            "Score worker started, lane %s, instance %s: health and metrics on port %d.",
            self._lane.name,
            worker.instance,
            health.port,
        )
        self._watchdog.start()
        start_checks(self._settings, dict.fromkeys(self._needed_kinds))
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
            self._ownership.close()
            self._products.close()
            self._bundle_watcher.close()
            self._worker.close()
            self._watchdog.close()
            health.close()

    def _prepare(self) -> None:
        """Before the first event: check Redis, read erasures and the catalogue, load a model, compile."""
        retry = self._worker.retry
        client = self._worker.stores.profiles.client
        retry.call("redis", client.check)
        retry.call("kafka", self._ownership.claim)
        retry.call("redis", lambda: report_changed_settings(client, self._settings))
        retry.call("redis", self._worker.stores.people.agree)
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
        heartbeat = pipeline.retry.on_wait

        def report_and_heartbeat() -> None:
            if pipeline.knows_positions():  # a wait may begin before the last batch was reported
                pipeline.publish_progress(self._progress)
            heartbeat()

        pipeline.retry.on_wait = report_and_heartbeat
        pipeline.consumer.subscribe(self._event_topics.names_of(self._lane.kinds), pipeline)
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
                    self._run_periodic(pipeline)
        self._finish_refreshes(pipeline)
        log.info("Stopping as requested; everything read is answered and merged.")

    def _finish_refreshes(self, pipeline: BatchPipeline) -> None:
        """Give the answers by the clock for which users wait, as far as half of `worker.stop_s` suffices."""
        self._scorer.end_delays()
        deadline_s = time.monotonic() + self._settings.worker.stop_s / 2
        try:
            while self._scorer.is_refresh_due(now_ms()) and time.monotonic() < deadline_s:
                pipeline.step(now_ms, polls=False)
        finally:
            if waiting := self._scorer.count_waiting():
                log.info("Leaving %d users who wait for a list to the next process.", waiting)

    def _run_periodic(self, pipeline: BatchPipeline) -> None:
        pipeline.publish_progress(self._progress)
        pipeline.shared_ids.report()
        self._remedy.apply(pipeline.consumer)
        try:
            pipeline.advance()
            self._worker.stores.people.agree()
            if self._worker.erasure_service:
                self._worker.erasure_service.confirm(pipeline)
            self._scorer.take_share(pipeline.find_share())
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

    def _collect_followed(self) -> dict[TopicPartition, int]:
        """How far the topics outside the group are read; other threads call this."""
        erasures = self._worker.erasure_service
        return self._products.positions | (erasures.consumer.positions if erasures else {})

    def _check_live(self) -> str | None:
        return self._watchdog.find_dead()

    def _check_ready(self) -> str | None:
        block = self._watchdog.find_unready()
        if self._has_started:
            return block
        starting = f"Starting: erasures, the catalogue and a model are loaded first. {self._products.progress}"
        return f"{starting} {block}" if block else starting
