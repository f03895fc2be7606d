"""`python -m worker score`: one process of one lane, from its parts to its end."""

import gc
import logging
import sys
import threading
import time
from typing import Final

from contract.encoding import Encoder
from contract.errors import StaleState, Unavailable
from contract.features import FeatureSet
from contract.settings import Settings
from worker import metrics
from worker.answers import Scorer
from worker.broker import Broker
from worker.browsing import Browser
from worker.bundles import Bundles
from worker.caches import Caches
from worker.catalogue import Catalogue
from worker.challenger import Lineup
from worker.claims import Claims
from worker.compiled import load_compiled
from worker.deciding import Decider
from worker.doors import Doors, State
from worker.erasing import Erasing
from worker.follower import Follower
from worker.health import HealthServer
from worker.intake import Intake
from worker.lanes import LANES
from worker.patience import Patience, Stopped
from worker.popular_lists import PopularLists
from worker.positions import Positions
from worker.products import Products
from worker.profile_store import open_profiles
from worker.progress import Progress
from worker.protocol import Dropped, Protocol
from worker.publisher import Publisher
from worker.recovery import Recovery
from worker.redis_cluster import connect, connect_caches
from worker.step import StepMark
from worker.stopwatch import STOPWATCH

log = logging.getLogger(__name__)
HOUSEKEEPING_S: Final = 1.0
COLLECT_S: Final = 10.0
SWITCH_S: Final = 0.001  # for which a batch waits for the thread that opens a bundle; 5 ms by default


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class ScoreWorker:
    """Scores one lane's events until `stop` is set."""

    def __init__(self, *, settings: Settings, features: FeatureSet, lane: str, stop: threading.Event) -> None:
        self._settings, self._lane, self._stop = settings, LANES[lane], stop
        self._patience = Patience(stop)
        self._positions = Positions()
        self._progress = Progress(settings.worker.stall_s)
        self._bundles = Bundles(folder=settings.bundles, features=features)
        encoder = Encoder(features)
        self._catalogue = Catalogue(encoder, settings.worker.items_max)
        self._browser = Browser(lists=settings.lists, encoder=encoder, catalogue=self._catalogue)
        self._decider = Decider(settings=settings, encoder=encoder)
        self._products = Products(
            follower=Follower(kafka=settings.kafka, topics=[settings.topics.products]), catalogue=self._catalogue
        )
        self._state = open_state(settings)
        self._erasing = Erasing(
            settings=settings, lane=self._lane, state=self._state, positions=self._positions, patience=self._patience
        )
        self._popular_lists = PopularLists(
            caches=self._state.caches,
            catalogue=self._catalogue,
            popularity=self._browser.popularity,
            length=settings.lists.length,
        )
        self._ready = False
        self._coming: Lineup | None = None

    @property
    def scorer(self) -> Scorer:
        return self._browser if self._lane.name == "browsing" else self._decider

    def run(self) -> None:
        """Work until asked to end; whatever ends it otherwise is raised."""
        worker = self._settings.worker
        health = HealthServer(port=worker.http_port, live=self._live, ready=self._is_ready, metrics=metrics.render)
        log.info("Lane %s, instance %s: health and metrics on port %d.", self._lane.name, worker.instance, health.port)
        try:
            self._prepare()
            protocol = self._open_protocol()
            try:
                self._work(protocol)
            finally:
                protocol.close()
        except Stopped as stopped:
            log.info("Ending before the batch in hand was committed; it will be read again. %s", stopped)
        finally:
            self._products.close()
            self._bundles.close()
            self._erasing.close()
            health.close()

    def _prepare(self) -> None:
        """What has to stand before the first event: Redis fit to remember, whom to forget, the catalogue, a model."""
        self._patience.insist("redis", self._state.profiles.client.check)
        self._erasing.open()
        while not self._erasing.load() and not self._stop.is_set():
            pass
        self._patience.insist("kafka", self._products.open)
        while not self._products.ready and not self._stop.is_set():
            self._products.follow()
        self._look_for_models(waits=True)
        self._take_up()
        load_compiled()
        gc.collect()
        gc.freeze()  # what stands now lives as long as the process: no collection needs to look at it again
        sys.setswitchinterval(SWITCH_S)
        gc.disable()  # a batch is thousands of objects in no cycle; between batches few are left to look at

    def _open_protocol(self) -> Protocol:
        settings, lane, step = self._settings, self._lane, StepMark()
        group = settings.kafka.group(lane.name)
        transactional = f"{group}-{settings.worker.instance}" if settings.kafka.transactions else None
        intake = Intake(kafka=settings.kafka, group=group, instance=settings.worker.instance, skips_gaps=False)
        publisher = Publisher(kafka=settings.kafka, transactional_id=transactional, patience=self._patience, step=step)
        recovery = Recovery(
            settings=settings,
            lane=lane,
            broker=Broker(kafka=settings.kafka),
            profiles=self._state.profiles,
            positions=self._positions,
            forgetting=self._erasing.forgetting,
        )
        protocol = Protocol(
            settings=settings,
            lane=lane,
            scorer=self.scorer,
            doors=Doors(intake=intake, publisher=publisher),
            state=self._state,
            recovery=recovery,
            patience=self._patience,
            step=step,
        )
        protocol.serve(*self._bundles.lineup)
        intake.subscribe([settings.topics.of(kind) for kind in lane.kinds], protocol)
        return protocol

    def _work(self, protocol: Protocol) -> None:
        """Step after step; once a second what concerns no single batch."""
        self._ready = True
        due_s = swap_due_s = collect_due_s = 0.0
        while not self._stop.is_set():
            protocol.step(now_ms)
            with STOPWATCH("follow"):  # products and erasures
                self._products.follow()
                self._erasing.tend(protocol)
            now_s = time.monotonic()
            if now_s >= swap_due_s or self._bundles.opened:
                swap_due_s = now_s + self._settings.worker.swap_poll_ms / 1000
                self._look_for_models()
            if self._coming and self._is_prepared(self._coming):
                with STOPWATCH("swap"):
                    self._take_up(protocol)
            if now_s >= collect_due_s:
                collect_due_s = now_s + COLLECT_S
                with STOPWATCH("collect"):
                    gc.collect()
            if now_s >= due_s:
                due_s = now_s + HOUSEKEEPING_S
                with STOPWATCH("house"):
                    self._keep_house(protocol, now_s)
        log.info("Asked to end; everything read is answered and remembered.")

    def _keep_house(self, protocol: Protocol, now_s: float) -> None:
        self._progress.note(*protocol.reading(), now_s)
        try:
            protocol.advance()
            self._erasing.confirm(protocol)
            if self._lane.name == "browsing":
                self._browser.look_around(self._state.profiles)
                self._popular_lists.write(now_ms())
        except (StaleState, Dropped) as error:
            protocol.recover(error)
        except Unavailable as error:
            log.warning("Housekeeping is left for later: %s", error)

    def _look_for_models(self, *, waits: bool = False) -> None:
        self._coming = self._bundles.look(waits=waits) or self._coming

    def _is_prepared(self, lineup: Lineup) -> bool:
        """Whether a line-up can answer without a pause; what items are to a model only browsing asks."""
        return self._lane.name != "browsing" or self._catalogue.prepare(*lineup.models)

    def _take_up(self, protocol: Protocol | None = None) -> None:
        """Answer with the line-up that has come, if one has; without a protocol that is told later."""
        if self._coming:
            if protocol:
                protocol.serve(*self._coming)
            else:
                self.scorer.serve(*self._coming)
            self._bundles.show()
            self._coming = None

    def _live(self) -> str | None:
        return self._progress.stalled

    def _is_ready(self) -> str | None:
        return None if self._ready else f"Erasures, the catalogue and a model come first. {self._products.progress}"


def open_state(settings: Settings) -> State:
    """The profiles, claims and caches of these settings."""
    redis = settings.redis
    client = connect(redis)
    cache = connect_caches(redis, client)
    return State(
        profiles=open_profiles(client, redis.prefix),
        claims=Claims(client=client, prefix=redis.prefix, ttl_s=settings.lists.decision_ttl_s),
        caches=Caches(client=cache, prefix=redis.prefix, lists=settings.lists),
    )
