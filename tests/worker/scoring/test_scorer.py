"""The lane scorer: each event goes to the handler of its type, with the models that have the handler's graph."""

from pathlib import Path

from contract.bundle import publish, read_bundle
from contract.events.model import KINDS
from contract.experiment import Trial
from contract.messages import Ranking, Recommendations
from testkit.environment.tiny_bundle import make_manifest, publish_tiny, tiny_files
from tests.worker.answers import read_messages
from tests.worker.browsing_harness import BrowsingHarness, make_click_record
from tests.worker.events import FEATURES, make_click, make_order, make_record, make_search
from tests.worker.order_scoring import make_scorer
from worker.model.experiment import TrialModel
from worker.model.onnx_model import Model
from worker.records.answers import ANSWER_KINDS, DECISION
from worker.records.lanes import LANES
from worker.scoring.handlers import HANDLERS


def test_every_lane_has_handlers_for_kinds_that_it_folds() -> None:
    assert HANDLERS.keys() == LANES.keys()
    for name, handlers in HANDLERS.items():
        folded = {KINDS[kind] for kind in LANES[name].folded_kinds}
        assert {handling.event for handling in handlers.events} <= folded
        assert all(set(handling.graph.scored_kinds) for handling in handlers.events)


def test_every_kind_of_answer_is_given_by_one_lane() -> None:
    given = [kind for handlers in HANDLERS.values() for kind in handlers.answer_kinds]

    assert set(given) == set(ANSWER_KINDS)
    assert len(given) == len(ANSWER_KINDS)


def test_an_event_without_a_handler_gets_no_kind_of_answer() -> None:
    scorer = make_scorer()

    assert scorer.kind_of(make_order("o")) is DECISION
    assert scorer.kind_of(make_click("c")) is None


def test_a_canary_without_the_search_graph_leaves_rankings_to_the_serving_model(tmp_path: Path) -> None:
    # given a canary for all users that can only recommend
    publish(tmp_path, make_manifest("v2"), {n: c for n, c in tiny_files().items() if n != "search.onnx"})
    publish_tiny(tmp_path, "v1")
    serving, canary = (Model(read_bundle(tmp_path, version), FEATURES) for version in ("v1", "v2"))
    lane = BrowsingHarness()
    lane.scorer.activate(serving, TrialModel(canary, Trial(version="v2", share=1.0)))
    # when
    results = lane.answer(
        make_click_record("c1", "i0"), make_record(make_search("s1", "i1", "i3"), topic="shop.searches")
    )
    # then
    assert [ranking.model_version for ranking in read_messages(results, Ranking)] == ["v1"]
    assert [recommendations.model_version for recommendations in read_messages(results, Recommendations)] == ["v2"]
