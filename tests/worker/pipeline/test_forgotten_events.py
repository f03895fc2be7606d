"""What a scorer keeps of a dropped batch for later would be answered twice: it is read again."""

from collections.abc import Callable, Sequence

from contract.errors import StaleState
from contract.profiles.entity_updates import Arrival
from contract.profiles.store import FoldedBatch
from tests.worker.environment import WorkerEnvironment
from tests.worker.signing_scorer import SigningScorer
from tests.worker.worker_lifecycle import InProcessWorker, StepEvent
from worker.records.batch import Batch
from worker.scoring.results import BatchResults

ORDERS = 40


class RememberingScorer(SigningScorer):
    """Keeps every event that it has answered, as users who wait for a list are kept."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.waiting: list[Arrival] = []
        self.forgotten: list[Arrival] = []

    def answer(self, batch: Batch, rows: Sequence[int], memory: FoldedBatch, now_ms: int) -> BatchResults:
        self.waiting += [batch.arrivals[row] for row in rows]
        return super().answer(batch, rows, memory, now_ms)

    def forget(self, is_reread: Callable[[Arrival], bool]) -> None:
        self.forgotten += [arrival for arrival in self.waiting if is_reread(arrival)]
        self.waiting = [arrival for arrival in self.waiting if not is_reread(arrival)]


def fail() -> None:
    raise StaleState("The state should stay. Found another one.")


def test_a_scorer_forgets_the_events_of_a_dropped_batch_and_keeps_the_published_ones(
    apache_stage: WorkerEnvironment, seed: int
) -> None:
    # given a worker whose second batch is dropped before it is published
    apache_stage.send_orders(seed, ORDERS)
    scorer = RememberingScorer("worker")
    # when
    with InProcessWorker(apache_stage, step_events=[StepEvent("publish", 2, fail)], scorer=scorer) as worker:
        worker.process_all(apache_stage.end_offsets("orders"))
    # then each event waits once
    waiting = [(arrival.topic, arrival.partition, arrival.offset) for arrival in scorer.waiting]
    assert scorer.forgotten
    assert len(waiting) == len(set(waiting)) == ORDERS
