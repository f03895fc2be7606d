"""Browsing: what the browsing lane says to clicks, searches and orders: scored rows, rankings, fresh lists."""

import logging
from collections.abc import Iterable, Sequence

import numpy as np

from contract.events import Click, Event, Order, Search
from contract.features.encoder import Encoder
from contract.profiles.store import FoldedBatch, ProfileStore
from contract.settings import ListSettings
from worker.catalogue.catalogue import Catalogue
from worker.catalogue.item_index import ItemNumbers
from worker.model.experiment import ActiveModels, TrialModel
from worker.model.onnx_model import Model, NeighbourTable
from worker.ops import metrics
from worker.ops.steps import PROFILER
from worker.recommend.list_builder import ListRequest
from worker.recommend.refresh_queue import RefreshQueue
from worker.records.batch import Batch
from worker.retrieval.candidate_generator import CandidateGenerator
from worker.retrieval.co_visitation import ItemNeighbours
from worker.retrieval.exploration import FreshItems
from worker.retrieval.popularity import Popularity
from worker.scoring.browsing_handler import BrowsingHandler
from worker.scoring.canary_router import CanaryRouter
from worker.scoring.results import BatchResults

log = logging.getLogger(__name__)
PREVIOUS_ITEMS_MAX = 2  # items that a click follows on, of the user's latest


class BrowsingScorer:
    """The scorer of the browsing lane."""

    def __init__(self, *, lists: ListSettings, encoder: Encoder, catalogue: Catalogue) -> None:
        self._encoder, self._catalogue, self._lists = encoder, catalogue, lists
        self._bundle_neighbours: NeighbourTable | None = None
        self._refresh_queue = RefreshQueue(lists.refresh_ms, lists.batch_max, lists.waiting_max)
        self._item_neighbours, self._fresh_items = ItemNeighbours(catalogue), FreshItems(catalogue, lists)
        self.popularity = Popularity(catalogue, lists.purchase_value)
        self._candidate_generator = CandidateGenerator(
            catalogue=catalogue,
            neighbours=self._item_neighbours,
            popularity=self.popularity,
            fresh_items=self._fresh_items,
            candidates_max=lists.candidates,
        )
        self._stream_ms = 0
        self._router = CanaryRouter(self._build_handler(ActiveModels()))

    def activate(self, model: Model | None, trial_model: TrialModel | None = None) -> None:
        models = ActiveModels(model, trial_model)
        self._catalogue.activate(*models.models)
        canary = models.supporting("recommend").canary
        self._router = CanaryRouter(
            self._build_handler(models), (canary, self._build_handler(ActiveModels(canary.model))) if canary else None
        )
        neighbours = model.neighbours if model else None
        if (
            neighbours is not self._bundle_neighbours
        ):  # candidates come from the serving model's alone, whoever ranks them
            self._bundle_neighbours = neighbours
            self._item_neighbours.activate(neighbours)
            if neighbours:
                self.popularity.seed(self._catalogue.find_hashes(neighbours.hashes[neighbours.popular]))
                self.popularity.rank()

    def _build_handler(self, models: ActiveModels) -> BrowsingHandler:
        return BrowsingHandler(
            lists=self._lists,
            encoder=self._encoder,
            catalogue=self._catalogue,
            candidate_generator=self._candidate_generator,
            models=models,
        )

    def refresh_periodic(self, profiles: ProfileStore) -> None:
        """What goes by the clock and by no event: what is popular, what is new; raises `Unavailable`."""
        self._catalogue.encode_pending()
        self._item_neighbours.refresh()
        self._fresh_items.refresh(self._stream_ms)
        if self._stream_ms:
            self.popularity.sweep(profiles, self._stream_ms)
        self.popularity.rank()

    def entities_to_read(self, batch: Batch, now_ms: int) -> list[str]:
        users = [
            *self._refresh_queue.due(now_ms),
            *(a.event.user_id for a in batch.watched if isinstance(a.event, Order)),
        ]
        return [f"user:{user}" for user in users]

    def answer(self, batch: Batch, rows: Sequence[int], memory: FoldedBatch, now_ms: int) -> BatchResults:
        answers = BatchResults()

        def reject_row(row: int, error: Exception, attempts: int) -> None:
            answers.rejects.append(batch.to_reject(batch.arrivals[row], error, attempts))

        clicks = [row for row in rows if isinstance(batch.arrivals[row].event, Click)]
        viewed = self._find_viewed_items(memory)
        searches = [row for row in rows if isinstance(e := batch.arrivals[row].event, Search) and e.items]
        with PROFILER("score clicks"):
            self._router.answer(
                clicks,
                batch.user_id,
                lambda handler, chunk: answers.scored.extend(handler.score_clicks(batch, chunk, memory, viewed)),
                reject_row,
            )
        self._router.answer(
            searches,
            batch.user_id,
            lambda handler, chunk: answers.rankings.extend(handler.rank_searches(batch, chunk, memory)),
            reject_row,
        )
        with PROFILER("score visits"):
            self._queue_refreshes(batch, clicks, now_ms)
            if clicks:
                self._count_visits(clicks, memory, viewed)
            self._count_purchases(arrival.event for arrival in batch.watched)
        return answers

    def _queue_refreshes(self, batch: Batch, clicks: Sequence[int], now_ms: int) -> None:
        """Whose list is due for these clicks and orders."""
        arrivals = [*(batch.arrivals[row] for row in clicks), *batch.watched]
        self._stream_ms = max([self._stream_ms, *[arrival.event.ts_ms for arrival in arrivals]])
        in_time = arrivals
        if self._lists.shed_ms:
            oldest_ms = now_ms - self._lists.shed_ms
            in_time = [arrival for arrival in arrivals if batch.find_record(arrival).kafka_ms >= oldest_ms]
        evicted = self._refresh_queue.push(in_time)
        metrics.LISTS_SHED.inc(len(arrivals) - len(in_time) + evicted)
        if len(in_time) < len(arrivals):
            for event in (arrival.event for arrival in arrivals):
                if isinstance(event, Order):
                    self._refresh_queue.record_purchase(event)

    def _find_viewed_items(self, memory: FoldedBatch) -> ItemNumbers:
        """The catalogue number of each arrival's item (N,), -1 for none or an unknown one: links have its hash."""
        updates = memory.updates
        first_touch = updates.find_first("item")
        numbers = (
            self._catalogue.find_hashes(updates.id_hash[updates.entity[first_touch]])
            if len(updates.entity)
            else first_touch
        )
        return np.where(first_touch < 0, -1, numbers)

    def _count_visits(self, clicks: Sequence[int], memory: FoldedBatch, viewed: ItemNumbers) -> None:
        numbers = viewed[clicks]
        self.popularity.mark_active(numbers)
        users = memory.updates.find_first("user")[np.asarray(clicks, np.int64)]
        previous = self._catalogue.find_hashes(
            memory.recent_ids[users][:, :PREVIOUS_ITEMS_MAX]
        )  # (clicks, VISITED_BEFORE)
        self._item_neighbours.co_visits.record(previous.ravel(), np.repeat(numbers, previous.shape[1]), self._stream_ms)

    def _count_purchases(self, events: Iterable[Event]) -> None:
        for event in events:
            if isinstance(event, Order):
                numbers = self._catalogue.find(list(dict.fromkeys(line.item_id for line in event.lines)))
                self.popularity.mark_active(numbers)
                self._item_neighbours.co_visits.record(numbers[:-1], numbers[1:], self._stream_ms)

    def refresh(self, memory: FoldedBatch, now_ms: int) -> BatchResults:
        """New lists for the users that are due and were read with this batch; one that fails costs no other."""
        answers = BatchResults()
        users = [user for user in self._refresh_queue.due(now_ms) if f"user:{user}" in memory.updates.index]
        popped = [self._refresh_queue.pop(user, now_ms) for user in users]
        requests = [ListRequest(arrival, frozenset(bought)) for arrival, bought in popped]
        self._router.answer(
            list(range(len(requests))),
            lambda n: requests[n].event.user_id,
            lambda handler, chunk: answers.lists.extend(
                handler.build_lists([requests[n] for n in chunk], memory, now_ms)
            ),
            lambda n, error, _: log.error("No list could be made for user %s: %s", requests[n].event.user_id, error),
        )
        return answers
