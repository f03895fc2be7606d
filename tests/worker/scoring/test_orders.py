"""Deciding: what an order is told, with a model and without one."""

from pathlib import Path

import numpy as np
import pytest

from contract.bundle import read_bundle
from contract.events import Order
from contract.features.declaration import Block
from contract.features.encoder import Encoder
from contract.profiles.entity_updates import to_updates
from contract.profiles.store import FoldedBatch, fold
from contract.settings import Rule, Settings
from tests.worker.events import FEATURES, KINDS, make_order, make_record
from tests.worker.tiny_bundle import publish_tiny
from transport.records import TopicPartition
from worker.model.onnx_model import Model, Scores
from worker.records.batch import Batch, decode_records
from worker.scoring.orders import OrderScorer
from worker.scoring.results import BatchResults

RULE = Rule(feature="device_first_links_1d", above=5, action="review", reason="busy")
SETTINGS = Settings().model_copy(update={"rules": (RULE,), "thresholds": {}})


def make_batch(*orders: Order) -> Batch:
    return decode_records(
        [make_record(value, n) for n, value in enumerate(orders)],
        KINDS,
        {TopicPartition("shop.orders", 0): "orders/0"},
        (),
    )


def fold_batch(batch: Batch) -> FoldedBatch:
    touches = to_updates(batch.arrivals)
    return fold([{} for _ in touches.entities], touches)


def decide_orders(decider: OrderScorer, *orders: Order) -> BatchResults:
    batch = make_batch(*orders)
    return decider.answer(batch, range(len(orders)), fold_batch(batch), 0)


@pytest.fixture
def model(tmp_path: Path) -> Model:
    """Fraud is likely above an amount of 100."""
    publish_tiny(tmp_path, "v1", doubt=100.0)
    return Model(read_bundle(tmp_path, "v1"), FEATURES)


@pytest.fixture
def decider() -> OrderScorer:
    return OrderScorer(settings=SETTINGS, encoder=Encoder(FEATURES))


class FailingModel(Model):
    """A model that cannot score amounts above 1,000, and knows no number for those above 500."""

    def run(self, graph: str, blocks: object, **more: object) -> Scores:
        assert isinstance(blocks, dict)
        block: Block = blocks["order"]
        amount = block.numbers[:, [f.name for f in FEATURES.numbers("order")].index("order_amount")]
        if (amount > 1_000).any():
            raise RuntimeError("too much for me")
        return {"fraud": np.where(amount > 500, np.nan, 0).astype(np.float32)}


def make_failing_model(model: Model) -> FailingModel:
    made = FailingModel.__new__(FailingModel)
    made.__dict__ |= model.__dict__
    return made


def test_a_decision_tells_the_model_s_probability_and_its_version(decider: OrderScorer, model: Model) -> None:
    # given
    decider.activate(model)
    # when
    answers = decide_orders(
        decider, make_order("o1", amount=98), make_order("o2", amount=100), make_order("o3", amount=103)
    )
    # then
    decisions = [decision for decision, _ in answers.decisions]
    assert [(d.event_id, d.action, round(d.probability["fraud"], 2)) for d in decisions] == [
        ("o1", "review", 0.12),
        ("o2", "review", 0.5),
        ("o3", "decline", 0.95),
    ]
    assert {(d.model_version, d.degraded) for d in decisions} == {("v1", False)}


def test_without_a_model_rules_decide_and_the_answer_says_so(decider: OrderScorer) -> None:
    # given one device on which six users have ordered within minutes
    orders = [make_order(f"o{n}", user=f"u{n}", device="d") for n in range(7)]
    # when
    decisions = [decision for decision, _ in decide_orders(decider, *orders).decisions]
    # then
    assert [d.action for d in decisions] == ["approve"] * 6 + ["review"]
    assert decisions[6].reasons == ("busy",)
    assert {(d.model_version, d.degraded, len(d.probability)) for d in decisions} == {("", True, 0)}


def test_an_order_logs_the_features_that_it_was_decided_by(decider: OrderScorer, model: Model) -> None:
    # given
    decider.activate(model)
    # when
    ((decision, scored),) = decide_orders(decider, make_order("o1", "i", amount=99, device="d", card="k")).decisions
    # then
    amount = [f.name for f in FEATURES.numbers("order")].index("order_amount")
    assert scored.groups["order"].unpack().numbers[0, amount] == 99
    assert set(scored.groups) == {"user", "order", "context"}
    assert scored.scores == {"fraud": (decision.probability["fraud"],)}
    assert scored.entities == ("user:u", "device:d", "card:k", "item:i")
    assert (scored.kind, scored.event_id, scored.features) == ("order", "o1", FEATURES.digest)


def test_an_order_that_cannot_be_scored_is_rejected_alone_and_one_without_a_number_is_not_approved(
    decider: OrderScorer, model: Model
) -> None:
    # given
    decider.activate(make_failing_model(model))
    amounts = [10.0] * 20
    amounts[7], amounts[13] = 5_000, 600
    # when
    answers = decide_orders(decider, *[make_order(f"o{n}", amount=amount) for n, amount in enumerate(amounts)])
    # then
    actions = {decision.event_id: decision.action for decision, _ in answers.decisions}
    assert actions == {f"o{n}": "approve" for n in range(20) if n != 7} | {"o13": "review"}
    assert [(r.record.offset, r.reason, r.detail) for r in answers.rejects] == [(7, "cannot_score", "too much for me")]
    (scored,) = [scored for decision, scored in answers.decisions if decision.event_id == "o13"]
    assert scored.scores == {}


def test_only_the_rows_that_are_asked_for_are_answered(decider: OrderScorer) -> None:
    batch = make_batch(make_order("o0"), make_order("o1"), make_order("o2"))

    answers = decider.answer(batch, [2], fold_batch(batch), 0)

    assert [decision.event_id for decision, _ in answers.decisions] == ["o2"]


def test_the_shop_s_thresholds_win_over_those_of_the_bundle(model: Model) -> None:
    # given a bundle that declines from 0.9 on and a shop that does from 0.5 on
    decider = OrderScorer(
        settings=SETTINGS.model_copy(update={"thresholds": {"fraud": {"decline": 0.5}}}), encoder=Encoder(FEATURES)
    )
    decider.activate(model)
    # then
    assert [d.action for d, _ in decide_orders(decider, make_order("o", amount=100)).decisions] == ["decline"]
