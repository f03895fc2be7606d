"""Joins searches with clicks: clicked items of a ranking are relevant to its query, the others at its top are not."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from contract.events.model import Click
from contract.graphs import SEARCH
from contract.joining.early_events import EarlyEvents
from contract.joining.examples import Relevance, add_labels, example_for_item, is_well_formed
from contract.joining.output import JoinOutput, OutcomeCounts
from contract.joining.pending import PendingStore
from contract.joining.row_store import RowStore
from contract.joining.sampling import NegativeSampler
from contract.messages import ScoredRow
from contract.redis_keys import escape_id
from contract.settings.worker import FeedbackSettings
from contract.tasks import Task

EXAMINED_MAX: Final = 10  # top ranks that the user is assumed to have seen
REPEATED_MAX: Final = 100  # pending searches of one user for one query; no person repeats a query more often


def make_search_key(user_id: str, query: str) -> str:
    """The user and the query, which a search and its clicks share; case and whitespace are ignored."""
    return f"{escape_id(user_id)}\0{' '.join(query.lower().split())}"


@dataclass(slots=True)
class PendingSearch:
    """A search as served, and the click times of its items."""

    row: ScoredRow
    clicked: dict[str, int] = field(default_factory=dict)
    is_settled: bool = False  # the wait for clicks is over; later ones are corrections

    @property
    def key(self) -> str:
        return make_search_key(self.row.user_id, self.row.query)


class SearchJoin:
    """Joins rows of searches with clicks that name the same query, once the wait for clicks is over."""

    def __init__(
        self,
        *,
        feedback: FeedbackSettings,
        tasks: Sequence[Task],
        output: JoinOutput,
        counts: OutcomeCounts,
        rows: RowStore | None = None,
    ) -> None:
        self._wait_ms = feedback.click_wait_s * 1000
        self._grace_ms = feedback.grace_s * 1000
        self._output, self._counts = output, counts
        self._searches = PendingStore(
            "searches", PendingSearch, limit=feedback.rows_max, removed_max=feedback.parked_max, rows=rows
        )
        self._negative_sampler = NegativeSampler(task="relevance", tasks=tasks, counts=counts)
        self._early_clicks = EarlyEvents(
            "search_clicks", Click, wait_ms=self._wait_ms + self._grace_ms, limit=feedback.parked_max, rows=rows
        )
        self.stores: list[PendingStore[Any]] = [self._searches, self._early_clicks.pending]

    def add_row(self, row: ScoredRow) -> None:
        if not row.user_id or not is_well_formed(row):  # which clicks a guest made is not known
            self._counts["unfit", "relevance"] += 1
        elif self._searches.get(row.event_id) or self._searches.was_removed(row.event_id):
            self._counts["duplicate", "row"] += 1
        else:
            self._add(PendingSearch(row))

    def add_click(self, click: Click) -> None:
        """Keep a click with a query and a user until the searches that it may belong to are settled."""
        if not click.query or not click.user_id:
            return
        key = make_search_key(click.user_id, click.query)
        origin = self._find_search(key, click)
        if origin and origin.is_settled:
            self._correct(origin, click)  # arrived out of order
        elif self._early_clicks.add(key, click, owner=click.user_id):
            self._counts["orphan", "relevance"] += 1

    def advance(self, watermark_ms: int) -> None:
        for key, search in self._searches.due(watermark_ms):
            if search.is_settled:
                self._searches.remove(key)
            else:
                self._settle(search)
                self._searches.update(key, due_ms=search.row.ts_ms + self._wait_ms + self._grace_ms)
        for _ in self._early_clicks.pop_expired(watermark_ms):
            self._counts["orphan", "relevance"] += 1

    def _add(self, search: PendingSearch) -> None:
        key, ts_ms = search.row.event_id, search.row.ts_ms
        evicted = self._searches.add(
            key,
            search,
            since_ms=ts_ms,
            due_ms=ts_ms + self._wait_ms,
            owner=search.row.user_id,
            group=search.key,
        )
        if evicted is None and len(repeated := self._searches.in_group(search.key)) > REPEATED_MAX:
            evicted = next(iter(repeated.items()))
            self._searches.remove(evicted[0])
        if evicted:
            self._counts["crowded", "relevance"] += 1

    def _settle(self, search: PendingSearch) -> None:
        """End the wait for clicks: emit the search's examples if it has any click."""
        search.is_settled = True
        for click in self._early_clicks.peek(search.key):
            if self._find_search(search.key, click) is search:
                self._early_clicks.remove(search.key, click)
                search.clicked.setdefault(click.item_id, click.ts_ms)
        if search.clicked:
            self._emit_all(search)

    def _correct(self, search: PendingSearch, click: Click) -> None:
        if click.item_id in search.clicked:
            self._counts["duplicate", "relevance"] += 1
            return
        search.clicked[click.item_id] = click.ts_ms
        self._searches.update(search.row.event_id)
        if len(search.clicked) == 1:
            self._emit_all(search)
        else:
            self._emit(search, click.item_id)

    def _emit_all(self, search: PendingSearch) -> None:
        for rank, item_id in enumerate(dict.fromkeys(search.row.items)):
            if rank < EXAMINED_MAX or item_id in search.clicked:
                self._emit(search, item_id)

    def _emit(self, search: PendingSearch, item_id: str) -> None:
        relevance = Relevance.CLICKED if item_id in search.clicked else Relevance.NOT_CLICKED
        known_ms = search.clicked.get(item_id, search.row.ts_ms + self._wait_ms)
        unlabelled = example_for_item(search.row, item_id, search.row.ts_ms, SEARCH.event_groups)
        example = add_labels(unlabelled, relevance, {"relevance": (float(relevance), known_ms)})
        self._output.examples += [example] if relevance else self._negative_sampler.sample(example)

    def _find_search(self, key: str, click: Click) -> PendingSearch | None:
        """The latest pending search before a click that has its item; of equal times the one with the greater id."""
        searches = [
            search
            for search in self._searches.in_group(key).values()
            if search.row.ts_ms <= click.ts_ms <= search.row.ts_ms + self._wait_ms and click.item_id in search.row.items
        ]
        return max(searches, key=lambda search: (search.row.ts_ms, search.row.event_id), default=None)
