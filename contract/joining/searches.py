"""Searches: the items of a ranking that were clicked are relevant to its query, the others at its top are not."""

from typing import Final

from contract.events import Click
from contract.joining.output import Counts, Output
from contract.joining.parking import Parked
from contract.joining.served import fits, labelled, pair
from contract.joining.shelf import Shelf
from contract.rows import Scored
from contract.settings import Feedback

TOP: Final = 10  # what is assumed to have been looked at
REPEATED_MAX: Final = 100  # searches of one user for one query that wait: more of them are no person's
GROUPS: Final = ("query", "user")
Asked = tuple[str, str]  # user and query


def asked(user_id: str, query: str) -> Asked:
    """What a search and its clicks have in common; case and spaces do not matter."""
    return user_id, " ".join(query.lower().split())


class Searches:
    """Joins rows of searches with clicks that name the same query, when the clicks have been waited for."""

    def __init__(self, *, feedback: Feedback, output: Output, counts: Counts) -> None:
        self._wait_ms, grace_ms = feedback.click_wait_s * 1000, feedback.grace_s * 1000
        self._output, self._counts = output, counts
        self._rows = Shelf[str, Scored](limit=feedback.rows_max, remembered=feedback.parked_max)
        self._asked: dict[Asked, dict[str, Scored]] = {}
        self._clicks = Parked[Asked, Click](wait_ms=self._wait_ms + grace_ms, limit=feedback.parked_max)

    def scored(self, row: Scored) -> None:
        if not fits(row):
            self._counts["unfit", "relevance"] += 1
        elif self._rows.get(row.event_id) or self._rows.left(row.event_id):
            self._counts["duplicate", "row"] += 1
        else:
            self._keep(row)

    def click(self, click: Click) -> None:
        """Keep a click until the searches that it may belong to are settled; one without a query belongs to none."""
        if click.query and self._clicks.park(asked(click.user_id, click.query), click):
            self._counts["orphan", "relevance"] += 1

    def advance(self, watermark_ms: int) -> None:
        for key, row in self._rows.due(watermark_ms):
            self._settle(row)
            self._forget(self._rows.remove(key))
        for _ in self._clicks.expired(watermark_ms):
            self._counts["orphan", "relevance"] += 1

    def oldest_ms(self) -> list[int | None]:
        return [self._rows.oldest_ms(), self._clicks.oldest_ms()]

    def _keep(self, row: Scored) -> None:
        crowded = self._rows.put(row.event_id, row, since_ms=row.ts_ms, due_ms=row.ts_ms + self._wait_ms)
        of = self._asked.setdefault(asked(row.user_id, row.query), {})
        of[row.event_id] = row
        if crowded is None and len(of) > REPEATED_MAX:
            oldest = next(iter(of))
            crowded = oldest, self._rows.remove(oldest)
        if crowded is not None:
            self._counts["crowded", "relevance"] += 1
            self._forget(crowded[1])

    def _settle(self, row: Scored) -> None:
        clicked: dict[str, int] = {}
        key = asked(row.user_id, row.query)
        for click in self._clicks.look(key):
            if self._origin(key, click) is row:
                clicked.setdefault(click.item_id, click.ts_ms)
                self._clicks.take(key, click)
        for at, item_id in enumerate(dict.fromkeys(row.items) if clicked else ()):
            if item_id in clicked or at < TOP:
                value = (1.0, clicked[item_id]) if item_id in clicked else (0.0, row.ts_ms + self._wait_ms)
                example = pair(row, item_id, row.ts_ms, GROUPS)
                self._output.examples.append(labelled(example, 0, {"relevance": value}))

    def _origin(self, key: Asked, click: Click) -> Scored | None:
        """The latest search before a click that had its item and still waits; of equal times the greater id."""
        rows = [
            row
            for row in self._asked[key].values()
            if row.ts_ms <= click.ts_ms <= row.ts_ms + self._wait_ms and click.item_id in row.items
        ]
        return max(rows, key=lambda row: (row.ts_ms, row.event_id), default=None)

    def _forget(self, row: Scored) -> None:
        of = self._asked[asked(row.user_id, row.query)]
        del of[row.event_id]
        if not of:
            del self._asked[asked(row.user_id, row.query)]
