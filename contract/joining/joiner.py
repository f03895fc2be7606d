"""The joiner: scored rows and the events after them become examples with labels.

It uses neither Kafka nor a clock: `advance` sets the watermark. A user's input may arrive in any order that keeps the
order of each topic; the last revision of each example is the same.

Memory is bounded: at most `rows_max` rows each of lists, clicked items, labelled rows and searches, and at most
`parked_max` events each of four kinds that wait for a row or a click. Further rows wait in a `RowStore`, if there is
one; else the oldest are evicted, as events are, and counted.
"""

from collections import Counter
from collections.abc import Sequence

from contract.events.model import Click, Event, Impression, Judgement, Label, Order
from contract.joining.labels import LabelJoin
from contract.joining.output import JoinOutput, Origin, OutcomeCounts
from contract.joining.recommendations import RecommendationJoin
from contract.joining.row_store import RowStore, TableChanges
from contract.joining.searches import SearchJoin
from contract.messages import ScoredRow
from contract.settings.worker import FeedbackSettings
from contract.tasks import Task


class Joiner:
    """Turns scored rows and events into examples and judgements.

    `tasks` are the model's: binary tasks of an order or a review are 0 when its window passes without a label, and
    `negative_rate` is the share of negatives of lists (`click`) and searches (`relevance`) that is kept. `counts`: the
    number of inputs by outcome (`contract.joining.output.JOIN_OUTCOMES`) and task.
    """

    def __init__(self, *, feedback: FeedbackSettings, tasks: Sequence[Task], rows: RowStore | None = None) -> None:
        """With `rows` the joiner goes on with what was committed there."""
        self._output = output = JoinOutput()
        self.counts: OutcomeCounts = Counter()
        counts = self.counts
        self._lists = RecommendationJoin(feedback=feedback, tasks=tasks, output=output, counts=counts, rows=rows)
        self._labels = LabelJoin(feedback=feedback, tasks=tasks, output=output, counts=counts, rows=rows)
        self._searches = SearchJoin(feedback=feedback, tasks=tasks, output=output, counts=counts, rows=rows)
        self._stores = [*self._lists.stores, *self._labels.stores, *self._searches.stores]

    def __len__(self) -> int:
        """The number of rows and events that wait."""
        return sum(map(len, self._stores))

    def add_row(self, row: ScoredRow) -> None:
        """Add a scored row; those of clicks and of events with another one's id have no labels to wait for."""
        if row.is_conflict:
            return
        match row.kind:
            case "recommendation":
                self._lists.add_row(row)
            case "order" | "review" | "product":
                self._labels.add_row(row)
            case "search":
                self._searches.add_row(row)
            case _:
                pass

    def add_event(self, event: Event, origin: Origin | None = None) -> None:
        """Add an impression, click, order or label; others are ignored. `origin`: its position in the log."""
        match event:
            case Impression():
                self._lists.add_event(event)
            case Click():
                self._lists.add_event(event)
                self._searches.add_click(event)
            case Order():
                self._lists.add_order(event)
            case Judgement():
                pass  # the joiner's own output
            case Label():
                self._labels.add_label(event, origin)
            case _:
                pass

    def advance(self, watermark_ms: int) -> None:
        """Advance to `watermark_ms`: emit negative labels for rows whose window has closed."""
        self._lists.advance(watermark_ms)
        self._labels.advance(watermark_ms)
        self._searches.advance(watermark_ms)

    def erase(self, user_id: str, until_ms: int) -> int:
        """Remove what waits of a user and has a part at or before `until_ms`; returns how many rows and events."""
        return sum(store.erase(user_id, until_ms) for store in self._stores)

    def drain(self) -> JoinOutput:
        """The output since the last call."""
        return self._output.drain()

    def oldest_pending_ms(self) -> int | None:
        """The event time of the oldest pending input that could still give an example; None without any."""
        return min((ms for store in self._stores if (ms := store.oldest_ms()) is not None), default=None)

    @property
    def uncommitted(self) -> int:
        """The number of rows and events that the next commit of the store writes or deletes."""
        return sum(store.uncommitted for store in self._stores)

    def changes(self) -> list[TableChanges]:
        """What has changed since the last commit of the store."""
        return [store.changes() for store in self._stores]

    def confirm_commit(self) -> None:
        """The changes were committed; rows beyond `rows_max` leave the memory."""
        for store in self._stores:
            store.confirm_commit()
