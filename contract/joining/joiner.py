"""The joiner: rows as served, and what happened after them, become examples with labels.

It knows neither Kafka nor a clock: time is what `advance` says. Input of one user may come in any order that keeps the
order of each topic; the last revision of each example is the same.

Memory is bounded: at most `rows_max` rows each of lists, clicked items, judged rows and searches, and at most
`parked_max` events each of five kinds that wait for a row or a click. What has to leave is counted.
"""

from collections import Counter
from collections.abc import Sequence

from contract.events import Click, Event, Impression, Judgement, Label, Order
from contract.joining.labels import LabelJoin
from contract.joining.output import JoinOutput, Origin, OutcomeCounts
from contract.joining.recommendations import RecommendationJoin
from contract.joining.searches import SearchJoin
from contract.messages import ScoredRow
from contract.settings import FeedbackSettings
from contract.tasks import Task


class Joiner:
    """Takes scored rows and events, gives examples and judgements.

    `tasks` are the model's: those of yes or no that judge an order or a review are 0 when its window passes without a
    label, and `negative_rate` says which share of the negatives of lists (`click`) and searches (`relevance`) is kept.
    `counts` has how many came to which fate (`contract.joining.output.FATES`), by task.
    """

    def __init__(self, *, feedback: FeedbackSettings, tasks: Sequence[Task]) -> None:
        self._output = JoinOutput()
        self.counts: OutcomeCounts = Counter()
        self._lists = RecommendationJoin(feedback=feedback, tasks=tasks, output=self._output, counts=self.counts)
        self._labels = LabelJoin(feedback=feedback, tasks=tasks, output=self._output, counts=self.counts)
        self._searches = SearchJoin(feedback=feedback, tasks=tasks, output=self._output, counts=self.counts)

    def add_row(self, row: ScoredRow) -> None:
        """Take a row as served; a click's own row waits for nothing."""
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
        """Take an impression, click, order or label; others say nothing about a row. `origin`: where it was read."""
        match event:
            case Impression():
                self._lists.add_event(event)
            case Click():
                self._lists.add_event(event)
                self._searches.add_click(event)
            case Order():
                self._lists.add_order(event)
            case Judgement():
                pass  # what this joiner has said itself
            case Label():
                self._labels.add_label(event, origin)
            case _:
                pass

    def advance(self, watermark_ms: int) -> None:
        """Say what silence says: all that happened before `watermark_ms` has been given."""
        self._lists.advance(watermark_ms)
        self._labels.advance(watermark_ms)
        self._searches.advance(watermark_ms)

    def drain(self) -> JoinOutput:
        """What is ready since it was last taken."""
        return self._output.drain()

    def oldest_pending_ms(self) -> int | None:
        """The event time since which something waits that could still give an example; None if nothing does."""
        times = [*self._lists.oldest_ms(), *self._labels.oldest_ms(), *self._searches.oldest_ms()]
        return min((ms for ms in times if ms is not None), default=None)
