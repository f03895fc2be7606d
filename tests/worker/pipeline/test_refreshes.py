"""Answers by the clock: whatever interrupts a batch, each user who waits gets one, and it is cached.

It is published once, unless it was lost between its publication and the cache.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Container, Sequence

import pytest

from contract.errors import StaleState
from contract.events.model import Order
from contract.messages import Recommendations, RecommendedItem, read_recommendations, read_scored_row, to_json
from contract.profiles.entity_updates import Arrival
from contract.profiles.store import FoldedBatch
from tests.worker.environment import WorkerEnvironment
from tests.worker.events import make_order
from tests.worker.signing_scorer import SigningScorer
from tests.worker.worker_lifecycle import InProcessWorker, StepEvent, raise_killed
from transport.records import TopicPartition
from worker.pipeline.limits import AdaptiveBatchSize
from worker.recommend.refresh_queue import RefreshQueue
from worker.records.answers import DECISION, LIST, Answer
from worker.records.batch import Batch
from worker.scoring.results import BatchResults
from worker.state.answer_cache import AnswerCache

USERS = [f"u{n}" for n in range(40)]
LISTS_S = 0.05
PER_BATCH = 6  # fewer lists than records, so that users wait


class ClockedScorer(SigningScorer):
    """Gives a list to the user of each order, a few with each batch."""

    answer_kinds = (DECISION, LIST)

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.queue = RefreshQueue(refresh_ms=0, waiting_max=1_000)
        self.answer_cache: AnswerCache | None = None

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

    def find_waiting(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        return self.queue.find_first(partitions)

    def wait_again(self, batch: Batch, arrivals: Sequence[Arrival], now_ms: int) -> None:
        assert self.answer_cache
        by_user = {arrival.event.user_id: arrival for arrival in arrivals if isinstance(arrival.event, Order)}
        cached = self.answer_cache.read_source_ms(LIST, list(by_user))
        waiting = [by_user[user] for user in by_user if user not in cached and user not in self.queue]
        self.queue.push(waiting, now_ms, is_again=True)

    def release(self, partitions: Container[TopicPartition]) -> None:
        self.queue.release(partitions)

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


class SlowScorer(ClockedScorer):
    """Takes `LISTS_S` for the lists of a batch."""

    def refresh(self, memory: FoldedBatch, now_ms: int, refresh_max: int) -> BatchResults:
        time.sleep(LISTS_S)
        return super().refresh(memory, now_ms, refresh_max)


def start_worker(
    stage: WorkerEnvironment, name: str, *events: StepEvent, scorer_type: type[ClockedScorer] = ClockedScorer
) -> tuple[InProcessWorker, ClockedScorer]:
    scorer = scorer_type(name)
    worker = InProcessWorker(stage, scorer=scorer, step_events=events)
    scorer.answer_cache = worker.answer_cache
    return worker, scorer


def fail() -> None:
    raise StaleState("The state should stay. Found another one.")


def count_published_lists(stage: WorkerEnvironment) -> Counter[str]:
    """Published scored rows of lists by user; each order of this test has one of its decision and one of its list."""
    rows = Counter(read_scored_row(record.value or b"").user_id for record in stage.read_records("scored"))
    return Counter({user: count - 1 for user, count in rows.items()})


def send_order_of_each_user(stage: WorkerEnvironment) -> dict[TopicPartition, int]:
    """Send an order of each user; returns the ends of the partitions."""
    stage.send("orders", [(user, to_json(make_order(f"o-{user}", "i", user=user))) for user in USERS])
    return stage.end_offsets("orders")


def read_cached_users(stage: WorkerEnvironment) -> set[str]:
    """The users who have a list in Redis."""
    values = stage.redis.pipeline([("GET", f"{stage.settings.redis.prefix}rec:{user}") for user in USERS])
    return {read_recommendations(value).user_id for value in values if value}


@pytest.mark.parametrize("step", ["refresh", "publish", "commit", "merge", "cache"])
def test_every_user_gets_a_list_although_a_batch_is_dropped_in_this_step(
    apache_stage: WorkerEnvironment, step: str
) -> None:
    # given
    stage = apache_stage
    ends = send_order_of_each_user(stage)
    worker, scorer = start_worker(stage, "worker", StepEvent(step, 3, fail))
    # when the third batch meets a lost state in this step, and no record comes after the last one
    with worker:
        worker.run_until(lambda: worker.has_processed(ends) and not scorer.queue)
    # then
    assert read_cached_users(stage) == set(USERS)
    published = count_published_lists(stage)
    repeated = [user for user, count in published.items() if count > 1]
    assert set(published) == set(USERS)
    assert len(repeated) == (PER_BATCH if step == "cache" else 0)


@pytest.mark.parametrize("step", ["read", "refresh", "publish", "commit", "merge", "cache"])
def test_users_who_waited_in_a_killed_worker_get_their_lists_from_its_successor(
    apache_stage: WorkerEnvironment, step: str
) -> None:
    # given a worker that is killed in this step, while users wait whose orders are decided
    stage = apache_stage
    ends = send_order_of_each_user(stage)
    killed, _ = start_worker(stage, "killed", StepEvent(step, 4, raise_killed))
    killed.run_until_killed()
    # when
    successor, scorer = start_worker(stage, "successor")
    with successor:
        successor.run_until(lambda: successor.has_processed(ends) and not scorer.queue)
    # then, unless they were published and not cached, lists are published once
    assert read_cached_users(stage) == set(USERS)
    published = count_published_lists(stage)
    repeated = [user for user, count in published.items() if count > 1]
    assert set(published) == set(USERS)
    assert len(repeated) <= (PER_BATCH if step in ("merge", "cache") else 0)


def test_users_who_wait_when_their_partition_moves_get_their_lists_from_its_next_owner(
    apache_stage: WorkerEnvironment,
) -> None:
    # given a worker that has read every order and has users waiting
    stage = apache_stage
    ends = send_order_of_each_user(stage)
    first, first_scorer = start_worker(stage, "first")
    first.run_until(lambda: first.has_processed(ends))
    waiting = set(first_scorer.queue.due(2**53, len(USERS)))
    assert waiting
    # when it leaves without another list, and the next owner has none of its memory
    first_scorer.queue.release(list(ends))
    with first:
        pass
    second, second_scorer = start_worker(stage, "second")
    with second:
        second.run_until(lambda: second.has_processed(ends) and not second_scorer.queue)
    # then
    assert read_cached_users(stage) == set(USERS)
    assert count_published_lists(stage) == dict.fromkeys(USERS, 1)


def test_a_stopping_worker_gives_the_lists_for_which_users_wait(apache_stage: WorkerEnvironment) -> None:
    # given a worker that has read every order and has users waiting
    stage = apache_stage
    ends = send_order_of_each_user(stage)
    worker, scorer = start_worker(stage, "worker")
    with worker:
        worker.run_until(lambda: worker.has_processed(ends))
        assert scorer.queue
        # when it goes on without reading
        while scorer.queue:
            assert worker.pipeline.step(lambda: 0, polls=False) == 0
    # then
    assert read_cached_users(stage) == set(USERS)


def test_the_time_of_lists_is_told_apart_from_that_of_records(
    apache_stage: WorkerEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a worker whose lists are slow
    times_ms = list[float]()
    monkeypatch.setattr(AdaptiveBatchSize, "update", lambda *arguments: times_ms.append(arguments[-1]))
    stage = apache_stage
    ends = send_order_of_each_user(stage)
    worker, scorer = start_worker(stage, "worker", scorer_type=SlowScorer)
    # when
    with worker:
        worker.run_until(lambda: worker.has_processed(ends) and not scorer.queue)
    # then
    assert max(times_ms) >= LISTS_S * 1000
