"""Searches: the items of a ranking that were clicked are relevant to its query, the others at its top are not."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from contract.events import Click
from contract.joining.output import Counts, Output
from contract.joining.parking import Parked
from contract.joining.sampling import Negatives
from contract.joining.served import Relevance, fits, labelled, pair
from contract.joining.shelf import Shelf
from contract.rows import Scored
from contract.settings import Feedback
from contract.tasks import Task

TOP: Final = 10  # what is assumed to have been looked at
REPEATED_MAX: Final = 100  # searches of one user for one query that wait: more of them are no person's
GROUPS: Final = ("query", "user")
Asked: TypeAlias = tuple[str, str]  # user and query


def asked(user_id: str, query: str) -> Asked:
    """What a search and its clicks have in common; case and spaces do not matter."""
    return user_id, " ".join(query.lower().split())


@dataclass(slots=True)
class Searched:
    """A search as served, and which of its items were clicked at what time."""

    row: Scored
    clicked: dict[str, int] = field(default_factory=dict)
    is_settled: bool = False

    @property
    def asked(self) -> Asked:
        return asked(self.row.user_id, self.row.query)


class Searches:
    """Joins rows of searches with clicks that name the same query, when the clicks have been waited for."""

    def __init__(self, *, feedback: Feedback, tasks: Sequence[Task], output: Output, counts: Counts) -> None:
        self._wait_ms, self._grace_ms = feedback.click_wait_s * 1000, feedback.grace_s * 1000
        self._output, self._counts = output, counts
        self._searches = Shelf[str, Searched](limit=feedback.rows_max, remembered=feedback.parked_max)
        self._negatives = Negatives(task="relevance", tasks=tasks, counts=counts)
        self._asked: dict[Asked, dict[str, Searched]] = {}
        self._clicks = Parked[Asked, Click](wait_ms=self._wait_ms + self._grace_ms, limit=feedback.parked_max)

    def scored(self, row: Scored) -> None:
        if not fits(row):
            self._counts["unfit", "relevance"] += 1
        elif self._searches.get(row.event_id) or self._searches.left(row.event_id):
            self._counts["duplicate", "row"] += 1
        else:
            self._keep(Searched(row))

    def click(self, click: Click) -> None:
        """Keep a click until the searches that it may belong to are settled; one without a query belongs to none."""
        if not click.query:
            return
        key = asked(click.user_id, click.query)
        origin = self._origin(key, click)
        if origin and origin.is_settled:
            self._correct(origin, click)  # it came out of order
        elif self._clicks.park(key, click):
            self._counts["orphan", "relevance"] += 1

    def advance(self, watermark_ms: int) -> None:
        for key, search in self._searches.due(watermark_ms):
            if search.is_settled:
                self._forget(self._searches.remove(key))
            else:
                self._settle(search)
                self._searches.wake(key, search.row.ts_ms + self._wait_ms + self._grace_ms)
        for _ in self._clicks.expired(watermark_ms):
            self._counts["orphan", "relevance"] += 1

    def oldest_ms(self) -> list[int | None]:
        return [self._searches.oldest_ms(), self._clicks.oldest_ms()]

    def _keep(self, search: Searched) -> None:
        key, ts_ms = search.row.event_id, search.row.ts_ms
        of = self._asked.setdefault(search.asked, {})
        of[key] = search
        crowded = self._searches.put(key, search, since_ms=ts_ms, due_ms=ts_ms + self._wait_ms)
        if crowded is None and len(of) > REPEATED_MAX:
            oldest = next(iter(of))
            crowded = oldest, self._searches.remove(oldest)
        if crowded:
            self._counts["crowded", "relevance"] += 1
            self._forget(crowded[1])

    def _settle(self, search: Searched) -> None:
        """The clicks have been waited for; whatever comes now is a correction."""
        search.is_settled = True
        for click in self._clicks.look(search.asked):
            if self._origin(search.asked, click) is search:
                self._clicks.take(search.asked, click)
                search.clicked.setdefault(click.item_id, click.ts_ms)
        if search.clicked:
            self._say_all(search)

    def _correct(self, search: Searched, click: Click) -> None:
        if click.item_id in search.clicked:
            self._counts["duplicate", "relevance"] += 1
            return
        search.clicked[click.item_id] = click.ts_ms
        if len(search.clicked) == 1:
            self._say_all(search)
        else:
            self._say(search, click.item_id)

    def _say_all(self, search: Searched) -> None:
        for at, item_id in enumerate(dict.fromkeys(search.row.items)):
            if at < TOP or item_id in search.clicked:
                self._say(search, item_id)

    def _say(self, search: Searched, item_id: str) -> None:
        relevance = Relevance.CHOSEN if item_id in search.clicked else Relevance.PASSED_OVER
        known_ms = search.clicked.get(item_id, search.row.ts_ms + self._wait_ms)
        example = pair(search.row, item_id, search.row.ts_ms, GROUPS)
        said = labelled(example, relevance, {"relevance": (float(relevance), known_ms)})
        self._output.examples += [said] if relevance else self._negatives.kept(said)

    def _origin(self, key: Asked, click: Click) -> Searched | None:
        """The latest search before a click that had its item and still waits; of equal times the greater id."""
        searches = [
            search
            for search in self._asked.get(key, {}).values()
            if search.row.ts_ms <= click.ts_ms <= search.row.ts_ms + self._wait_ms and click.item_id in search.row.items
        ]
        return max(searches, key=lambda search: (search.row.ts_ms, search.row.event_id), default=None)

    def _forget(self, search: Searched) -> None:
        of = self._asked[search.asked]
        del of[search.row.event_id]
        if not of:
            del self._asked[search.asked]
