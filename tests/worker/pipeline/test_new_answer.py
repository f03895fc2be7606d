"""A new kind of answer needs a kind and a handler: it is published, cached, logged, counted and erased like any other.

The answer is the probability that a review is fake. Nothing in `worker.pipeline`, `worker.state` or `worker.erasure`
knows it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

import msgspec
import pytest

from contract.events.model import Review
from contract.features.encoder import list_entities
from contract.features.packing import split_rows
from contract.graphs import REVIEW
from contract.messages import ScoredRowBuilder, read_scored_row, to_json
from contract.profiles.store import FoldedBatch
from contract.settings.servers import TopicSettings
from tests.conftest import KafkaBroker
from tests.metrics import assert_increases
from tests.worker.environment import WorkerEnvironment
from tests.worker.events import NOW_MS
from tests.worker.order_scoring import make_scorer
from tests.worker.worker_lifecycle import InProcessWorker, StepEvent, raise_killed
from worker.model.experiment import ActiveModels
from worker.ops import metrics
from worker.records.answers import Answer, AnswerKind, CachePolicy, ClaimPolicy
from worker.records.batch import Batch
from worker.scoring.handlers import HANDLERS
from worker.scoring.scorer import EventHandling, LaneHandlers, ScoringResources


class ReviewTopics(TopicSettings):
    review_scores: str = "shop.review-scores"


class ReviewScore(msgspec.Struct, frozen=True, kw_only=True):
    event_id: str
    user_id: str
    fake_review: float


REVIEW_SCORE: Final = AnswerKind(
    name="review",
    message=ReviewScore,
    topic="review_scores",
    cache=CachePolicy("review", lambda lists: 60, entry_id=lambda score: score.event_id, index_key="reviewed"),
)
CLAIMED_SCORE: Final = replace(REVIEW_SCORE, claim=ClaimPolicy("review-claim", "claimed-reviews"))


class ReviewHandler:
    """Scores a review by its stars, as no bundle of the tests has the graph."""

    kind = REVIEW_SCORE
    stars_max = 5

    def __init__(self, resources: ScoringResources, models: ActiveModels, is_canary: bool) -> None:
        self._encoder = resources.encoder

    def answer(self, batch: Batch, rows: list[int], memory: FoldedBatch) -> list[Answer]:
        blocks = self._encoder.encode_before(memory, rows, REVIEW.event_groups)
        builder, answers = ScoredRowBuilder(self._encoder.features.digest, ""), list[Answer]()
        for row, groups, entities in zip(rows, split_rows(blocks), list_entities(memory, rows), strict=True):
            review = batch.arrivals[row].event
            assert isinstance(review, Review)
            fake_review = review.rating / self.stars_max
            score = ReviewScore(event_id=review.event_id, user_id=review.user_id, fake_review=fake_review)
            scores: dict[str, tuple[float, ...]] = {"fake_review": (fake_review,)}
            scored = builder.build("review", batch.arrivals[row], groups, scores=scores, entities=entities)
            answers.append(Answer(self.kind, scored, score))
        return answers


class ClaimingHandler(ReviewHandler):
    kind = CLAIMED_SCORE


class HalvingHandler(ClaimingHandler):
    """Gives half the score, as another model might after a restart."""

    stars_max = 10


def handle_reviews(build: type[ReviewHandler]) -> LaneHandlers:
    """The handlers of the orders lane, and this one."""
    handling = EventHandling(event=Review, kind=build.kind, graph=REVIEW, build=build)
    return LaneHandlers((*HANDLERS["orders"].events, handling))


@pytest.fixture
def review_stage(broker: KafkaBroker, redis_url: str, topic_prefix: str) -> Iterator[WorkerEnvironment]:
    environment = WorkerEnvironment(broker=broker, redis_url=redis_url, prefix=topic_prefix, topics=ReviewTopics())
    yield environment
    environment.close()


def send_reviews(stage: WorkerEnvironment, *stars_by_user: tuple[str, int], first: int = 0) -> None:
    reviews = [
        Review(event_id=f"r{n}", ts_ms=NOW_MS + n, user_id=user, item_id="i", rating=stars)
        for n, (user, stars) in enumerate(stars_by_user, first)
    ]
    stage.send("reviews", [(review.user_id, to_json(review)) for review in reviews])


def open_worker(
    stage: WorkerEnvironment,
    *,
    handler: type[ReviewHandler] = ReviewHandler,
    erases: bool = False,
    step_events: Sequence[StepEvent] = (),
) -> InProcessWorker:
    scorer = make_scorer(stage.settings, handle_reviews(handler))
    return InProcessWorker(stage, scorer=scorer, kinds=("orders", "reviews"), erases=erases, step_events=step_events)


def process_all(stage: WorkerEnvironment, worker: InProcessWorker) -> None:
    worker.process_all(stage.end_offsets("orders", "reviews"))


def read_cached_reviews(stage: WorkerEnvironment) -> dict[str, float]:
    """The cached scores by their key."""
    (keys,) = stage.redis.pipeline([("KEYS", f"{stage.prefix}review:*")])
    values = stage.redis.pipeline([("GET", key) for key in keys])
    scores = [msgspec.json.decode(value, type=ReviewScore).fake_review for value in values]
    return {key.decode().removeprefix(stage.prefix): score for key, score in zip(keys, scores, strict=True)}


def test_a_registered_answer_is_published_cached_logged_and_counted(review_stage: WorkerEnvironment, seed: int) -> None:
    # given
    stage = review_stage
    sent = stage.send_orders(seed, 20)
    send_reviews(stage, ("u1", 5), ("u2", 1))
    # when
    with assert_increases(metrics.ANSWERS, "review", by=2), open_worker(stage) as worker:
        process_all(stage, worker)
    # then
    published = [
        msgspec.json.decode(record.value or b"", type=ReviewScore) for record in stage.read_records("review_scores")
    ]
    assert {score.event_id: score.fake_review for score in published} == {"r0": 1.0, "r1": 0.2}
    assert {record.key for record in stage.read_records("review_scores")} == {b"u1", b"u2"}
    assert read_cached_reviews(stage) == {"review:u1:r0": 1.0, "review:u2:r1": 0.2}
    rows = [read_scored_row(record.value or b"") for record in stage.read_records("scored")]
    assert {row.event_id: row.scores["fake_review"] for row in rows if row.kind == "review"} == {
        "r0": (1.0,),
        "r1": (0.2,),
    }
    # and orders are answered as before
    assert stage.is_decided_once(sent)
    assert stage.find_differences("orders", "reviews") == []


def test_a_registered_answer_with_a_claim_is_claimed_once_over_a_replay(review_stage: WorkerEnvironment) -> None:
    # given a worker that dies between the claim and the publication
    stage = review_stage
    send_reviews(stage, ("u1", 5))
    killed = [StepEvent("send", 1, raise_killed)]
    open_worker(stage, handler=ClaimingHandler, step_events=killed).run_until_killed()
    assert stage.read_records("review_scores") == []
    # when the next one would answer differently
    with open_worker(stage, handler=HalvingHandler) as worker:
        process_all(stage, worker)
    # then
    published = [
        msgspec.json.decode(record.value or b"", type=ReviewScore) for record in stage.read_records("review_scores")
    ]
    assert [(score.event_id, score.fake_review) for score in published] == [("r0", 1.0)]
    rows = [read_scored_row(record.value or b"") for record in stage.read_records("scored")]
    assert [(row.event_id, row.scores["fake_review"]) for row in rows] == [("r0", (1.0,))]


def test_a_registered_answer_is_erased_with_its_user(
    apache_kafka: KafkaBroker, redis_url: str, topic_prefix: str
) -> None:
    # given two users with a cached answer
    stage = WorkerEnvironment(broker=apache_kafka, redis_url=redis_url, prefix=topic_prefix, topics=ReviewTopics())
    send_reviews(stage, ("u1", 5), ("u2", 1))
    with open_worker(stage, erases=True) as worker:
        process_all(stage, worker)
        # when one of them is erased, and an older review of that user comes late
        stage.send_erasure("u1", NOW_MS + 9)
        worker.run_until(lambda: len(read_cached_reviews(stage)) < 2)
        send_reviews(stage, ("u1", 4), ("u2", 3), first=2)
        process_all(stage, worker)
    # then
    assert read_cached_reviews(stage) == {"review:u2:r1": 0.2, "review:u2:r3": 0.6}
    assert {record.key for record in stage.read_records("review_scores")} == {b"u1", b"u2"}
    assert len(stage.read_records("review_scores")) == 3
    stage.close()
