"""The examples that the watcher keeps: the newest revision of each, for as long as figures may want it.

Labels mature late, so rows wait for days. Where they would be too many, those of fewer people are kept, chosen by a
hash of the user: whole lists stay together, and who is kept has nothing to do with what they did.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from contract.hashing import hash_text
from contract.messages import Example
from contract.settings import FeedbackSettings
from contract.tasks import Task

HASH_RANGE: Final = 2**64
GROW_DIVISOR: Final = 4  # below this part of the limit twice as many people are kept again


class ExampleStore:
    """The examples of one graph, at most `rows_max`."""

    def __init__(self, *, rows_max: int) -> None:
        self.share = 1.0  # of people
        self._rows: dict[str, Example] = {}
        self._rows_max = rows_max

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Example]:
        return iter(self._rows.values())

    def add(self, example: Example) -> None:
        """Keep an example, unless a newer revision of it is there or its user is not among those who are kept."""
        previous = self._rows.get(example.example_id)
        if hash_fraction(example.user_id) < self.share and (previous is None or previous.revision <= example.revision):
            self._rows[example.example_id] = example
            while len(self._rows) > self._rows_max:
                self._halve_sample()

    def evict_before(self, before_ms: int) -> None:
        """Let go of what is older, and keep more people where few rows are left."""
        self._rows = {key: row for key, row in self._rows.items() if row.ts_ms >= before_ms}
        if len(self._rows) * GROW_DIVISOR < self._rows_max:
            self.share = min(2 * self.share, 1.0)

    def _halve_sample(self) -> None:
        """Keep half as many people."""
        self.share /= 2
        self._rows = {key: row for key, row in self._rows.items() if hash_fraction(row.user_id) < self.share}


def hash_fraction(user_id: str) -> float:
    """Where a user stands from 0 to 1; another place than a trial's, or they would be the same people."""
    return hash_text(f"watched={user_id}") / HASH_RANGE


def find_graph(example: Example, tasks: Sequence[Task]) -> str | None:
    """The graph that answered an example: that of the first task which it has a label of."""
    return next((task.graph for task in tasks if task.name in example.labels), None)


def maturity_delay_ms(task: Task, feedback: FeedbackSettings) -> int:
    """How long after its row whatever may become known of a task is known, labels of both kinds alike.

    A positive counts no earlier than a negative of its age, or the latest rows would all be positives.
    """
    if task.graph in ("decide", "review"):
        seconds = feedback.fraud_window_s
    else:
        seconds = feedback.click_wait_s + (feedback.purchase_window_s if task.through else 0)
    return (seconds + feedback.grace_s) * 1_000


def maturity_delays_ms(tasks: Sequence[Task], feedback: FeedbackSettings) -> Mapping[str, int]:
    """The wait of each task whose labels come later; a class is known with its product and is not waited for."""
    return {task.name: maturity_delay_ms(task, feedback) for task in tasks if task.kind != "multiclass"}
