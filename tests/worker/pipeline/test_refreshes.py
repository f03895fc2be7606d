"""Answers by the clock: whatever interrupts a batch, each user who waits gets one, once, and it is cached."""

from collections import Counter
from collections.abc import Callable, Sequence

import pytest

from contract.errors import StaleState
from contract.messages import Recommendations, RecommendedItem, read_recommendations, read_scored_row, to_json
from contract.profiles.entity_updates import Arrival
from contract.profiles.store import FoldedBatch
from tests.worker.environment import WorkerEnvironment
from tests.worker.events import make_order
from tests.worker.signing_scorer import SigningScorer
from tests.worker.worker_lifecycle import InProcessWorker, StepEvent
from worker.recommend.refresh_queue import RefreshQueue
from worker.records.answers import DECISION, LIST, Answer
from worker.records.batch import Batch
from worker.scoring.results import BatchResults

USERS = [f"u{n}" for n in range(40)]
PER_BATCH = 6  # fewer lists than records, so that users wait


class ClockedScorer(SigningScorer):
    """Gives a list to the user of each order, a few with each batch."""

    answer_kinds = (DECISION, LIST)

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.queue = RefreshQueue(refresh_ms=0, waiting_max=1_000)

    def answer(self, batch: Batch, rows: Sequence[int], memory: FoldedBatch, now_ms: int) -> BatchResults:
        self.queue.push([batch.arrivals[row] for row in rows], now_ms)
        return super().answer(batch, rows, memory, now_ms)

    def is_refresh_due(self, now_ms: int) -> bool:
        return bool(self.queue)

    def entities_to_read(self, batch: Batch, now_ms: int, refresh_max: int) -> list[str]:
        return [f"user:{user}" for user in self.queue.due(now_ms, PER_BATCH)]

    def refresh(self, memory: FoldedBatch, now_ms: int, refresh_max: int) -> BatchResults:
        users = self.queue.due(now_ms, PER_BATCH, memory.updates.index)
        return BatchResults([self._list(taken.waiting.arrival, now_ms) for taken in self.queue.take(users, now_ms)])

    def take_back(self) -> None:
        self.queue.put_back()

    def forget(self, is_reread: Callable[[Arrival], bool]) -> None:
        self.queue.forget(is_reread)

    def _list(self, arrival: Arrival, now_ms: int) -> Answer:
        signed = self._sign(arrival)
        recommendations = Recommendations(
            user_id=signed.scored.user_id,
            recommendation_id=f"r-{arrival.event.event_id}",
            items=(RecommendedItem(item_id="i", score=1.0, probability={}, why="popular"),),
            model_version="",
            computed_ms=now_ms,
            source_ms=arrival.event.ts_ms,
        )
        return Answer(LIST, signed.scored, recommendations)


def fail() -> None:
    raise StaleState("The state should stay. Found another one.")


def count_published_lists(stage: WorkerEnvironment) -> Counter[str]:
    """Published scored rows of lists by user; each order of this test has one of its decision and one of its list."""
    rows = Counter(read_scored_row(record.value or b"").user_id for record in stage.read_records("scored"))
    return Counter({user: count - 1 for user, count in rows.items()})


def read_cached_users(stage: WorkerEnvironment) -> set[str]:
    """The users who have a list in Redis."""
    values = stage.redis.pipeline([("GET", f"{stage.settings.redis.prefix}rec:{user}") for user in USERS])
    return {read_recommendations(value).user_id for value in values if value}


@pytest.mark.parametrize("step", ["refresh", "publish", "commit", "merge", "cache"])
def test_every_user_gets_one_list_although_a_batch_is_dropped_in_this_step(
    apache_stage: WorkerEnvironment, step: str
) -> None:
    # given
    stage = apache_stage
    stage.send("orders", [(user, to_json(make_order(f"o-{user}", "i", user=user))) for user in USERS])
    scorer, ends = ClockedScorer("worker"), stage.end_offsets("orders")
    # when the third batch meets a lost state in this step, and no record comes after the last one
    with InProcessWorker(stage, scorer=scorer, step_events=[StepEvent(step, 3, fail)]) as worker:
        worker.run_until(lambda: worker.has_processed(ends) and not scorer.queue)
    # then
    assert count_published_lists(stage) == dict.fromkeys(USERS, 1)
    if step != "cache":  # the step itself failed
        assert read_cached_users(stage) == set(USERS)


def test_a_stopping_worker_gives_the_lists_for_which_users_wait(apache_stage: WorkerEnvironment) -> None:
    # given a worker that has read every order and has users waiting
    stage = apache_stage
    stage.send("orders", [(user, to_json(make_order(f"o-{user}", "i", user=user))) for user in USERS])
    scorer, ends = ClockedScorer("worker"), stage.end_offsets("orders")
    with InProcessWorker(stage, scorer=scorer) as worker:
        worker.run_until(lambda: worker.has_processed(ends))
        assert scorer.queue
        # when it goes on without reading
        while scorer.queue:
            assert worker.pipeline.step(lambda: 0, polls=False) == 0
    # then
    assert read_cached_users(stage) == set(USERS)
