"""Refreshes recommendation lists in the browsing lane, and collects what candidates are generated from.

Users whose list is due get a new one with the batch that is read anyway. Visits and purchases update popularity and
co-visitation, whichever model answers.
"""

import logging
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from contract.events.model import Click, Event, Order
from contract.experiment import CONTROL, VARIANT, Arm
from contract.features.encoder import gather_rows
from contract.graphs import RECOMMEND
from contract.profiles.entity_updates import Arrival
from contract.profiles.store import FoldedBatch, ProfileStore
from contract.settings.worker import ListSettings
from transport.records import TopicPartition
from worker.catalogue.item_index import ItemNumbers
from worker.doctor.rule_reports import RuleReporter
from worker.model.experiment import ActiveModels, model_version
from worker.model.item_tables import NeighbourTable
from worker.ops import metrics
from worker.recommend.item_share import ItemShare
from worker.recommend.list_builder import NO_MODELS, ListBuilder, ListRequest
from worker.recommend.list_variants import ListVariants
from worker.recommend.recent_purchases import RecentPurchases
from worker.recommend.refresh_queue import RefreshQueue
from worker.recommend.shared_lists import SharedLists
from worker.records.answers import LIST
from worker.records.batch import Batch
from worker.retrieval.candidate_generator import CandidateGenerator
from worker.retrieval.co_visitation import ItemNeighbours
from worker.retrieval.exploration import FreshItems
from worker.retrieval.histories import BatchHistories
from worker.retrieval.item_search import report_searches
from worker.retrieval.next_item import NextItemSource
from worker.retrieval.popularity import Popularity
from worker.rules.list_rules import ListRules
from worker.rules.rule_file import RuleFile
from worker.scoring.canary_router import CanaryRouter
from worker.scoring.clicks import find_viewed_items
from worker.scoring.results import BatchResults
from worker.scoring.scorer import RowsByEvent, ScoringResources
from worker.state.user_histories import NO_WRITES

log = logging.getLogger(__name__)
PREVIOUS_ITEMS_MAX = 2  # of the user's latest items, those that a click is counted as following


class ListRefresher:
    """Builds a list for each user who clicked or bought, at most once in `lists.refresh_ms`.

    Raises `BadConfig` for a file of list rules that is wrong.
    """

    def __init__(self, resources: ScoringResources) -> None:
        lists, catalogue = resources.settings.lists, resources.catalogue
        self._lists, self._encoder, self._catalogue = lists, resources.encoder, catalogue
        self._answer_cache = resources.answer_cache
        self._experiments = resources.settings.experiments
        self._bundle_neighbours: NeighbourTable | None = None
        features = resources.encoder.features
        self.rules = ListRules(catalogue, features, RuleFile(Path(lists.rules), features) if lists.rules else None)
        self._rule_reporter = (
            RuleReporter(
                resources.answer_cache.client, resources.settings.redis.prefix, resources.settings.worker.instance
            )
            if resources.answer_cache
            else None
        )
        self._recent_purchases = RecentPurchases()
        self._queue = RefreshQueue(lists.refresh_ms, lists.waiting_max)
        self.item_neighbours, self._fresh_items = ItemNeighbours(catalogue), FreshItems(catalogue, lists)
        self.popularity = Popularity(
            catalogue, lists.purchase_value, resources.people, lists.trending_half_life_s * 1000
        )
        self._shared_lists = (
            SharedLists(
                settings=resources.settings,
                answer_cache=resources.answer_cache,
                catalogue=catalogue,
                popularity=self.popularity,
                rules=self.rules,
            )
            if resources.answer_cache
            else None
        )
        self._candidate_generator = CandidateGenerator(
            catalogue=catalogue,
            neighbours=self.item_neighbours,
            popularity=self.popularity,
            fresh_items=self._fresh_items,
            candidates_max=lists.candidates,
        )
        self._user_histories = resources.user_histories
        self._next_item_sources = dict[str, NextItemSource]()  # by the version of the bundle
        self._stream_ms = 0
        self._router = CanaryRouter(self._build_variants(NO_MODELS, {}))

    def activate(self, models: ActiveModels) -> None:
        self._catalogue.activate(*models.models)
        self._next_item_sources = {
            model.version: self._next_item_sources.get(model.version)
            or NextItemSource(model.next_item, model.neighbours, self._catalogue)
            for model in (models.serving, models.canary.model if models.canary else None)
            if model and model.next_item
        }
        supporting = models.supporting(RECOMMEND.name)
        canary = supporting.canary
        self._router = CanaryRouter(
            self._build_variants(
                supporting, {canary.version: CONTROL} if canary else {}, model_version(models.serving)
            ),
            (
                canary,
                self._build_variants(ActiveModels(canary.model), {canary.version: VARIANT}, canary.version),
            )
            if canary
            else None,
        )
        if self._shared_lists:
            self._shared_lists.activate(models.serving)
        neighbours = models.serving.neighbours if models.serving else None
        # A canary has the candidates of its own next-item part, and otherwise those of the serving model.
        if neighbours is not self._bundle_neighbours:
            self._bundle_neighbours = neighbours
            self.item_neighbours.activate(neighbours)
            if neighbours:
                self.popularity.seed(self._catalogue.find_hashes(neighbours.hashes[neighbours.popular]))
                self.popularity.rank(self.rules.of("personal"))

    def prepare(self, models: ActiveModels) -> bool:
        return self._catalogue.prepare(*models.models)

    def run_periodic(self, profiles: ProfileStore, now_ms: int) -> None:
        """Follow the list rules, update fresh and popular items, write lists for all users; raises `Unavailable`."""
        self._catalogue.encode_pending()
        self.item_neighbours.refresh()
        self.rules.poll()
        self.rules.refresh(now_ms, self._stream_ms)
        personal = self.rules.of("personal")
        for source in self._next_item_sources.values():
            source.refresh(personal)
        report_searches([source.search for source in self._next_item_sources.values()], now_ms)
        self._fresh_items.refresh(self._stream_ms)
        if self._stream_ms:
            self.popularity.sweep(profiles, self._stream_ms)
        self.popularity.rank(personal)
        metrics.LIST_WAITING_USERS.set(len(self._queue))
        metrics.LIST_WAITING_SECONDS.set(self._queue.measure_wait_ms(now_ms) / 1000)
        if self._shared_lists:
            self._shared_lists.write(now_ms)
        if self._rule_reporter and (report := self.rules.report):
            self._rule_reporter.write(report, now_ms)

    def take_share(self, share: ItemShare) -> None:
        if self._shared_lists:
            self._shared_lists.share = share

    def is_refresh_due(self, now_ms: int) -> bool:
        return bool(self._queue.due(now_ms, 1))

    def entities_to_read(self, batch: Batch, now_ms: int, refresh_max: int) -> list[str]:
        buyers = [arrival.event.user_id for arrival in batch.watched if isinstance(arrival.event, Order)]
        return [f"user:{user}" for user in (*self._queue.due(now_ms, refresh_max), *buyers) if user]

    def observe(self, batch: Batch, rows_by_event: RowsByEvent, memory: FoldedBatch, now_ms: int) -> None:
        """Queue the users of these clicks and of watched orders, and count visits and purchases."""
        clicks = rows_by_event.get(Click, ())
        self._queue_users(batch, [*(batch.arrivals[row] for row in clicks), *batch.watched], now_ms)
        if clicks:
            self._count_visits(clicks, memory)
        self._count_purchases(arrival.event for arrival in batch.watched)

    def refresh(self, memory: FoldedBatch, now_ms: int, refresh_max: int) -> BatchResults:
        """New lists for users that are due and were read with this batch; a failing list costs no other one."""
        results = BatchResults()
        users = self._queue.due(now_ms, refresh_max, memory.updates.index)
        histories = None
        self._queue.take([], now_ms)  # an error of the read leaves no users of an earlier batch to be put back
        if users and self._user_histories:
            pending = memory.slice_writes() if memory.updates.logins else NO_WRITES
            known = self._user_histories.read(users, pending)
            histories = BatchHistories({user: row for row, user in enumerate(users)}, known)
        requests = [
            ListRequest(waiting.arrival, frozenset(bought), waiting.is_again, self._recent_purchases.of(user))
            for user, (waiting, bought) in zip(users, self._queue.take(users, now_ms), strict=True)
        ]
        self._router.answer(
            list(range(len(requests))),
            lambda n: requests[n].event.user_id,
            lambda builder, chunk: results.answers.extend(
                builder.build([requests[n] for n in chunk], memory, now_ms, histories)
            ),
            lambda n, error, _: log_failed_list(requests[n].arrival, error),
        )
        return results

    def take_back(self) -> None:
        self._queue.put_back()

    def end_delays(self) -> None:
        self._queue.refresh_ms = 0

    def count_waiting(self) -> int:
        return len(self._queue)

    def find_waiting(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        return self._queue.find_first(partitions)

    def release(self, partitions: Container[TopicPartition]) -> None:
        self._queue.release(partitions)

    def wait_again(self, batch: Batch, arrivals: Sequence[Arrival], now_ms: int) -> None:
        """Users of these events wait, except those who do already, or whose list reflects the event."""
        latest = dict[str, Arrival]()
        for arrival in arrivals:
            event = arrival.event
            if isinstance(event, Click | Order) and event.user_id and event.user_id not in self._queue:
                held = latest.get(event.user_id)
                latest[event.user_id] = arrival if held is None or event.ts_ms >= held.event.ts_ms else held
        source_ms = self._answer_cache.read_source_ms(LIST, list(latest)) if self._answer_cache else {}
        stale = [arrival for user, arrival in latest.items() if source_ms.get(user, -1) < arrival.event.ts_ms]
        self._queue_users(batch, stale, now_ms, is_again=True)

    def forget(self, is_reread: Callable[[Arrival], bool]) -> None:
        """Let no user wait for a list because of an event that will be read again: it would be logged twice."""
        self._queue.forget(is_reread)

    def forget_erased(self, until_ms: Mapping[str, int]) -> None:
        self._queue.forget_erased(until_ms)
        self._recent_purchases.forget_erased(until_ms)

    def _build_variants(
        self, models: ActiveModels, trial_arm: Mapping[str, Arm], version: str = ""
    ) -> ListBuilder | ListVariants:
        """A builder of lists by the models of a bundle; `trial_arm`: of its users, while a canary is on."""
        if not self._experiments and not trial_arm:
            return self._build_builder(models, self._lists, version)
        return ListVariants(
            experiments=self._experiments,
            lists=self._lists,
            trial_arm=trial_arm,
            build=lambda lists: self._build_builder(models, lists, version),
        )

    def _build_builder(self, models: ActiveModels, lists: ListSettings, version: str) -> ListBuilder:
        return ListBuilder(
            lists=lists,
            encoder=self._encoder,
            catalogue=self._catalogue,
            candidate_generator=self._candidate_generator.vary(lists, self._next_item_sources.get(version)),
            models=models,
            version=version if version in self._next_item_sources else "",
            rules=self.rules,
        )

    def _queue_users(self, batch: Batch, arrivals: Sequence[Arrival], now_ms: int, *, is_again: bool = False) -> None:
        """Queue the users of these events, except for events that waited in Kafka for longer than `lists.shed_ms`."""
        self._stream_ms = max([self._stream_ms, *[arrival.event.ts_ms for arrival in arrivals]])
        in_time = arrivals
        if self._lists.shed_ms:
            oldest_ms = now_ms - self._lists.shed_ms
            in_time = [arrival for arrival in arrivals if batch.find_record(arrival).kafka_ms >= oldest_ms]
        evicted = self._queue.push(in_time, now_ms, is_again=is_again)
        metrics.LISTS_SHED.inc(len(arrivals) - len(in_time) + evicted)
        if len(in_time) < len(arrivals):
            for event in (arrival.event for arrival in arrivals):
                if isinstance(event, Order):
                    self._queue.record_purchase(event)

    def _count_visits(self, clicks: Sequence[int], memory: FoldedBatch) -> None:
        numbers = find_viewed_items(self._catalogue, memory, clicks)
        self.popularity.mark_active(numbers)
        users = memory.updates.find_first("user")[np.asarray(clicks, np.int64)]
        previous: ItemNumbers = self._catalogue.find_hashes(
            gather_rows(memory.recent_ids, users, 0)[:, :PREVIOUS_ITEMS_MAX]
        )  # (clicks, PREVIOUS_ITEMS_MAX)
        self.item_neighbours.co_visits.record(previous.ravel(), np.repeat(numbers, previous.shape[1]), self._stream_ms)

    def _count_purchases(self, events: Iterable[Event]) -> None:
        for event in events:
            if isinstance(event, Order):
                if event.user_id:
                    self._recent_purchases.record(event)
                numbers = self._catalogue.find(list(dict.fromkeys(line.item_id for line in event.lines)))
                self.popularity.mark_active(numbers)
                self.item_neighbours.co_visits.record(numbers[:-1], numbers[1:], self._stream_ms)


def log_failed_list(arrival: Arrival, error: Exception) -> None:
    partition = TopicPartition(arrival.topic, arrival.partition)
    log.error(
        "A user keeps the former list, the new one could not be built for the event at %s: %r",
        partition.log_text(arrival.offset),
        error,
        extra=partition.log_fields(arrival.offset),
    )
