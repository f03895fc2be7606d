"""The joiner: rows as served, and what happened after them, become examples with labels.

It knows neither Kafka nor a clock: time is what `advance` says. Input of one user may come in any order that keeps the
order of each topic; the last revision of each example is the same.

Memory is bounded: at most `rows_max` rows each of lists, clicked items, judged rows and searches, and at most
`parked_max` events each of five kinds that wait for a row or a click. What has to leave is counted.
"""

from collections import Counter
from collections.abc import Sequence

from contract.events import Click, Event, Impression, Judgement, Label, Order
from contract.joining.judged import JudgedRows
from contract.joining.lists import Lists
from contract.joining.output import Counts, Origin, Output
from contract.joining.searches import Searches
from contract.rows import Scored
from contract.settings import Feedback
from contract.tasks import Task


class Joiner:
    """Takes scored rows and events, gives examples and judgements.

    `tasks` are the model's: those of yes or no that judge an order or a review are 0 when its window passes without a
    label, and `negative_rate` says which share of the negatives of lists (`click`) and searches (`relevance`) is kept.
    `counts` has how many came to which fate (`contract.joining.output.FATES`), by task.
    """

    def __init__(self, *, feedback: Feedback, tasks: Sequence[Task]) -> None:
        self._output = Output()
        self.counts: Counts = Counter()
        self._lists = Lists(feedback=feedback, tasks=tasks, output=self._output, counts=self.counts)
        self._judged = JudgedRows(feedback=feedback, tasks=tasks, output=self._output, counts=self.counts)
        self._searches = Searches(feedback=feedback, tasks=tasks, output=self._output, counts=self.counts)

    def scored(self, row: Scored) -> None:
        """Take a row as served; a click's own row waits for nothing."""
        match row.kind:
            case "recommendation":
                self._lists.scored(row)
            case "order" | "review" | "product":
                self._judged.scored(row)
            case "search":
                self._searches.scored(row)
            case _:
                pass

    def event(self, event: Event, origin: Origin | None = None) -> None:
        """Take an impression, click, order or label; others say nothing about a row. `origin`: where it was read."""
        match event:
            case Impression():
                self._lists.seen(event)
            case Click():
                self._lists.seen(event)
                self._searches.click(event)
            case Order():
                self._lists.order(event)
            case Judgement():
                pass  # what this joiner has said itself
            case Label():
                self._judged.label(event, origin)
            case _:
                pass

    def advance(self, watermark_ms: int) -> None:
        """Say what silence says: all that happened before `watermark_ms` has been given."""
        self._lists.advance(watermark_ms)
        self._judged.advance(watermark_ms)
        self._searches.advance(watermark_ms)

    def take(self) -> Output:
        """What is ready since it was last taken."""
        return self._output.take()

    def oldest_open_ms(self) -> int | None:
        """The event time since which something waits that could still give an example; None if nothing does."""
        times = [*self._lists.oldest_ms(), *self._judged.oldest_ms(), *self._searches.oldest_ms()]
        return min((ms for ms in times if ms is not None), default=None)
