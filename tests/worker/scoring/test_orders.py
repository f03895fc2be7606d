"""The orders lane: each order gets a decision, with a model and without one."""

from pathlib import Path

import numpy as np
import pytest

from contract.bundle import read_bundle
from contract.features.declaration import Block
from contract.messages import Decision
from testkit.environment.tiny_bundle import publish_tiny
from tests.worker.answers import read_answers, read_messages
from tests.worker.events import FEATURES, make_order
from tests.worker.order_scoring import SETTINGS, decide_orders, fold_batch, make_batch, make_scorer
from worker.model.onnx_model import Model, Scores
from worker.scoring.scorer import LaneScorer


@pytest.fixture
def model(tmp_path: Path) -> Model:
    """Fraud is likely above an amount of 100."""
    publish_tiny(tmp_path, "v1", threshold=100.0)
    return Model(read_bundle(tmp_path, "v1"), FEATURES)


@pytest.fixture
def scorer() -> LaneScorer:
    return make_scorer()


class FailingModel(Model):
    """A model that fails on amounts above 1,000, and gives NaN for amounts above 500."""

    def run(self, graph: str, blocks: object, **more: object) -> Scores:
        assert isinstance(blocks, dict)
        block: Block = blocks["order"]
        amount = block.numbers[:, [feature.name for feature in FEATURES.numbers("order")].index("order_amount")]
        if (amount > 1_000).any():
            raise RuntimeError("too much for me")
        return {"fraud": np.where(amount > 500, np.nan, 0).astype(np.float32)}


def make_failing_model(model: Model) -> FailingModel:
    failing = FailingModel.__new__(FailingModel)
    failing.__dict__ |= model.__dict__
    return failing


def test_a_decision_states_the_model_s_probability_and_version(scorer: LaneScorer, model: Model) -> None:
    # given
    scorer.activate(model)
    # when
    results = decide_orders(
        scorer, make_order("o1", amount=98), make_order("o2", amount=100), make_order("o3", amount=103)
    )
    # then
    decisions = read_messages(results, Decision)
    assert [(d.event_id, d.action, round(d.probability["fraud"], 2)) for d in decisions] == [
        ("o1", "review", 0.12),
        ("o2", "review", 0.5),
        ("o3", "decline", 0.95),
    ]
    assert {(d.model_version, d.degraded) for d in decisions} == {("v1", False)}


def test_without_a_model_rules_decide_and_the_decision_is_degraded(scorer: LaneScorer) -> None:
    # given one device on which seven users order within minutes
    orders = [make_order(f"o{n}", user=f"u{n}", device="d") for n in range(7)]
    # when
    decisions = read_messages(decide_orders(scorer, *orders), Decision)
    # then
    assert [d.action for d in decisions] == ["approve"] * 6 + ["review"]
    assert decisions[6].reasons == ("busy",)
    assert {(d.model_version, d.degraded, len(d.probability)) for d in decisions} == {("", True, 0)}


def test_an_order_is_logged_with_the_features_that_decided_it(scorer: LaneScorer, model: Model) -> None:
    # given
    scorer.activate(model)
    # when
    results = decide_orders(scorer, make_order("o1", "i", amount=99, device="d", card="k"))
    # then
    ((decision, scored),) = read_answers(results, Decision)
    amount = [feature.name for feature in FEATURES.numbers("order")].index("order_amount")
    assert scored.groups["order"].unpack().numbers[0, amount] == 99
    assert set(scored.groups) == {"user", "order", "context"}
    assert scored.scores == {"fraud": (decision.probability["fraud"],)}
    assert scored.entities == ("user:u", "device:d", "card:k", "item:i")
    assert (scored.kind, scored.event_id, scored.features) == ("order", "o1", FEATURES.digest)


def test_a_failing_order_is_rejected_alone_and_one_without_a_score_is_reviewed(
    scorer: LaneScorer, model: Model
) -> None:
    # given
    scorer.activate(make_failing_model(model))
    amounts = [10.0] * 20
    amounts[7], amounts[13] = 5_000, 600
    # when
    results = decide_orders(scorer, *[make_order(f"o{n}", amount=amount) for n, amount in enumerate(amounts)])
    # then
    actions = {decision.event_id: decision.action for decision in read_messages(results, Decision)}
    assert actions == {f"o{n}": "approve" for n in range(20) if n != 7} | {"o13": "review"}
    assert [(r.record.offset, r.reason, r.detail) for r in results.rejects] == [(7, "cannot_score", "too much for me")]
    (scored,) = [scored for decision, scored in read_answers(results, Decision) if decision.event_id == "o13"]
    assert scored.scores == {}


def test_only_the_requested_rows_are_answered(scorer: LaneScorer) -> None:
    batch = make_batch(make_order("o0"), make_order("o1"), make_order("o2"))

    results = scorer.answer(batch, [2], fold_batch(batch), 0)

    assert [decision.event_id for decision in read_messages(results, Decision)] == ["o2"]


def test_the_shop_s_thresholds_override_those_of_the_bundle(model: Model) -> None:
    # given a bundle that declines from 0.9 on and a shop that does from 0.5 on
    scorer = make_scorer(SETTINGS.model_copy(update={"thresholds": {"fraud": {"decline": 0.5}}}))
    scorer.activate(model)
    # when
    results = decide_orders(scorer, make_order("o", amount=100))
    # then
    assert [decision.action for decision in read_messages(results, Decision)] == ["decline"]


def test_the_order_of_a_guest_is_decided_without_a_user_s_profile(scorer: LaneScorer, model: Model) -> None:
    # given orders of seven guests on one device, whose id the producer gives as `null`, and with a model
    scorer.activate(model)
    orders = [make_order(f"o{n}", amount=98, user="null", device="d1") for n in range(7)]
    # when
    results = decide_orders(scorer, *orders)
    # then each is decided, and they are not seven users on one device
    decisions = read_messages(results, Decision)
    assert [(d.event_id, d.user_id) for d in decisions] == [(f"o{n}", "") for n in range(7)]
    assert not any("busy" in d.reasons for d in decisions)


def test_orders_with_a_placeholder_for_a_device_share_no_device(scorer: LaneScorer) -> None:
    zeros = "00000000-0000-0000-0000-000000000000"
    orders = [make_order(f"o{n}", user=f"u{n}", device=zeros) for n in range(7)]

    decisions = read_messages(decide_orders(scorer, *orders), Decision)

    assert [d.action for d in decisions] == ["approve"] * 7
