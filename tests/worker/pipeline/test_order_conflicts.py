"""Two orders with one id: each gets its own decision, the second one for review, the same over a crash."""

from collections.abc import Sequence

import pytest

from contract.events.model import Order
from contract.messages import Decision, read_scored_row, to_json
from tests.metrics import assert_increases
from tests.worker.environment import PARTITIONS, WorkerEnvironment
from tests.worker.events import make_order
from tests.worker.worker_lifecycle import InProcessWorker, StepEvent, raise_killed, wait_until
from worker.ops import metrics
from worker.records.answers import ID_TAKEN


def send_orders(environment: WorkerEnvironment, *orders: Order) -> None:
    environment.send("orders", [(order.user_id, to_json(order)) for order in orders])


def find_decisions(environment: WorkerEnvironment, user: str) -> Sequence[Decision]:
    return [decision for decision in environment.read_decisions() if decision.user_id == user]


def has_fetched_all(environment: WorkerEnvironment, worker: InProcessWorker) -> bool:
    """Whether the next poll returns every order that is on the topic."""
    ends = worker.consumer.end_offsets()
    return {partition: end for partition, end in ends.items() if end} == environment.end_offsets("orders")


@pytest.mark.apache_kafka
def test_an_order_with_another_order_s_id_is_reviewed_and_never_gets_its_answer(
    apache_stage: WorkerEnvironment,
) -> None:
    # given a worker that dies when it has claimed an order, two others with its id, and a copy of it
    environment, first = apache_stage, make_order("o1", user="u1", amount=5, card="c1", ts_ms=1_000)
    others = [make_order("o1", user=user, amount=5_000, card="c2", ts_ms=2_000) for user in ("u2", "u3")]
    send_orders(environment, first)
    with InProcessWorker(environment, "first") as worker:
        worker.process_all(environment.end_offsets("orders"))
    second = InProcessWorker(environment, "second", step_events=[StepEvent("publish", 1, raise_killed)])
    second.run_until(lambda: len(second.consumer.assignment) == PARTITIONS)
    send_orders(environment, *others, make_order("o1", user="u1", amount=5, card="c1", ts_ms=3_000))
    wait_until(lambda: has_fetched_all(environment, second))  # so that it dies with all of them in one batch
    second.run_until_killed()
    # when another one answers the batch again
    with assert_increases(metrics.DECISIONS.labels("review"), by=2), InProcessWorker(environment, "third") as worker:
        worker.process_all(environment.end_offsets("orders"))
    # then the copy has the first answer, and the others their own, as the second one claimed them
    assert {(d.action, d.reasons, d.model_version) for d in find_decisions(environment, "u1")} == {
        ("approve", (), "first")
    }
    assert len(find_decisions(environment, "u1")) == 2
    for user in ("u2", "u3"):
        (decision,) = find_decisions(environment, user)
        assert (decision.action, decision.reasons, decision.model_version[:3]) == ("review", (ID_TAKEN,), "sec")
    # and only their scored rows are marked, which the joiner skips
    rows = [read_scored_row(record.value or b"") for record in environment.read_records("scored")]
    assert {row.user_id: row.is_conflict for row in rows} == {"u1": False, "u2": True, "u3": True}


@pytest.mark.parametrize("change", [{"amount": 7.0}, {"card": "c9"}])
def test_another_order_of_the_same_user_with_its_id_is_reviewed_too(
    stage: WorkerEnvironment, change: dict[str, object]
) -> None:
    # given
    content: dict[str, object] = {"user": "u1", "amount": 5.0, "card": "c1"}
    send_orders(stage, make_order("o1", **content), make_order("o1", **{**content, **change}))  # type: ignore[arg-type]
    # when
    with InProcessWorker(stage) as worker:
        worker.process_all(stage.end_offsets("orders"))
    # then
    assert [decision.action for decision in stage.read_decisions()] == ["approve", "review"]
