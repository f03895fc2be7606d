"""A challenger: heard as a shadow, answering some users as a canary, and never harming anybody."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from contract.bundle import publish, read_bundle, set_current
from contract.experiment import Trial, end_trial, set_trial
from contract.features.encoder import Encoder
from contract.messages import Decision, Ranking, Recommendations, ScoredRow
from tests.worker.browsing_harness import BrowsingHarness, make_click_record
from tests.worker.events import FEATURES, make_click, make_order, make_product, make_record, make_search
from tests.worker.scoring.test_orders import SETTINGS, decide_orders
from tests.worker.tiny_bundle import ITEMS, make_manifest, publish_tiny, sigmoid, tiny_files
from worker.model.bundle_watcher import BundleWatcher
from worker.model.experiment import ActiveModels, TrialModel
from worker.model.onnx_model import Model, Scores
from worker.ops import metrics
from worker.scoring.orders import OrderScorer
from worker.scoring.results import BatchResults

USERS = [f"u{n}" for n in range(40)]
HALF = Trial(version="v2", share=0.5)
CANARY_USERS = {user for user in USERS if HALF.includes(user)}


@pytest.fixture
def models(tmp_path: Path) -> tuple[Model, Model]:
    """Fraud is likely above an amount of 100 for one, above 50 for the other."""
    publish_tiny(tmp_path, "v1", doubt=100.0)
    publish_tiny(tmp_path, "v2", doubt=50.0)
    source, other = (Model(read_bundle(tmp_path, version), FEATURES) for version in ("v1", "v2"))
    return source, other


class BrokenModel(Model):
    """A model that cannot score anything; or gives no number, or numbers of another shape."""

    output: np.ndarray | None = None

    def run(self, graph: str, blocks: object, **more: object) -> Scores:
        if self.output is None:
            raise RuntimeError("too much for me")
        task = {"decide": "fraud", "search": "relevance"}.get(graph, "click")
        assert isinstance(blocks, dict)
        rows = len(more["item_part"]) if "item_part" in more else len(blocks["order"])  # type: ignore[arg-type]
        return {task: np.tile(self.output, (rows, *[1] * (self.output.ndim - 1)))}


def make_broken_model(model: Model, output: np.ndarray | None = None) -> BrokenModel:
    made = BrokenModel.__new__(BrokenModel)
    made.__dict__ |= model.__dict__
    made.output = output
    return made


def read_counter(name: str, **labels: str) -> float:
    return metrics.REGISTRY.get_sample_value(f"shopstream_{name}", labels) or 0.0


def make_decider(model: Model, challenger: TrialModel) -> OrderScorer:
    decider = OrderScorer(settings=SETTINGS, encoder=Encoder(FEATURES))
    decider.activate(model, challenger)
    return decider


def make_orders(amount: float = 75.0) -> list[object]:
    return [make_order(f"o-{user}", user=user, amount=amount) for user in USERS]


def collect_rows(answers: BatchResults) -> list[ScoredRow]:
    return [
        *(row for _, row in answers.decisions),
        *answers.scored,
        *(row for _, row in answers.lists),
        *(row for _, row in answers.rankings),
    ]


def fields_without_shadow(scored: ScoredRow) -> dict[str, object]:
    return {name: getattr(scored, name) for name in ScoredRow.__struct_fields__ if not name.startswith("shadow")}


def answer_browsing(lane: BrowsingHarness) -> BatchResults:
    """Everybody clicks, searches and orders."""
    clicks = [make_click_record(f"c-{user}", "i2", user, n) for n, user in enumerate(USERS)]
    searches = [
        make_record(make_search(f"s-{user}", "i1", "ghost", "i3", user=user), 100 + n, topic="shop.searches")
        for n, user in enumerate(USERS)
    ]
    return lane.answer(*clicks, *searches)


def test_a_shadow_s_scores_lie_beside_those_that_were_acted_on(models: tuple[Model, Model]) -> None:
    # given
    decider = make_decider(models[0], TrialModel(models[1], Trial(version="v2")))
    # when
    ((decision, scored),) = decide_orders(decider, make_order("o", amount=75)).decisions
    # then
    assert (decision.model_version, decision.action, scored.model_version) == ("v1", "approve", "v1")
    assert decision.probability["fraud"] < 1e-6
    assert scored.scores == {"fraud": (decision.probability["fraud"],)}
    assert (scored.shadow_version, scored.shadow["fraud"][0] > 0.99) == ("v2", True)


def test_with_a_shadow_every_answer_is_what_it_is_without_one(models: tuple[Model, Model]) -> None:
    # given two lanes, one with a shadow
    alone, heard = BrowsingHarness(), BrowsingHarness()
    alone.browser.activate(models[0])
    heard.browser.activate(models[0], TrialModel(models[1], Trial(version="v2")))
    # when
    one, other = answer_browsing(alone), answer_browsing(heard)
    # then
    assert [made for made, _ in one.lists] == [made for made, _ in other.lists]
    assert [made for made, _ in one.rankings] == [made for made, _ in other.rankings]
    assert list(map(fields_without_shadow, collect_rows(one))) == list(map(fields_without_shadow, collect_rows(other)))
    assert {row.shadow_version for row in collect_rows(one)} == {""}
    assert {row.shadow_version for row in collect_rows(other)} == {"v2"}


def test_a_shadow_is_asked_about_the_very_rows_that_are_logged(models: tuple[Model, Model]) -> None:
    # given a challenger of the same weights
    lane = BrowsingHarness()
    lane.browser.activate(models[0], TrialModel(models[1], Trial(version="v2")))
    # when
    rows = collect_rows(answer_browsing(lane))
    # then
    assert len(rows) == 3 * len(USERS)
    for row in rows:
        assert row.shadow.keys() == row.scores.keys()
        np.testing.assert_allclose(list(row.shadow.values()), list(row.scores.values()), 1e-6)
        assert all(len(values) == len(row.items) for values in row.shadow.values())


def test_new_and_changed_items_have_a_part_by_the_shadow_too(
    models: tuple[Model, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a challenger for which an item's part is made otherwise
    one, other = models
    monkeypatch.setattr(other, "item_part", lambda block: -one.item_part(block))
    lane = BrowsingHarness()
    lane.browser.activate(one, TrialModel(other, Trial(version="v2")))
    # when
    lane.catalogue.put(make_product("i0", price=5))
    lane.catalogue.put(make_product("new", price=7))
    rows = lane.answer(make_click_record("c1", "i0"), make_click_record("c2", "new", "v", 1)).scored
    # then
    for row, price in zip(rows, (5, 7), strict=True):
        np.testing.assert_allclose(row.scores["click"], sigmoid(np.array([price], np.float32)), 1e-5)
        np.testing.assert_allclose(row.shadow["click"], sigmoid(np.array([-price], np.float32)), 1e-5)


@pytest.mark.parametrize(
    ("said", "reason"),
    [(None, "error"), (np.array([np.nan], np.float32), "not_finite"), (np.zeros((1, 2), np.float32), "error")],
)
def test_a_shadow_that_fails_costs_nobody_an_answer_and_is_counted(
    models: tuple[Model, Model],
    said: np.ndarray | None,
    reason: str,
) -> None:
    # given
    shadow = TrialModel(make_broken_model(models[1], said), Trial(version="v2"))
    lane, alone, before = BrowsingHarness(), BrowsingHarness(), read_counter("trial_failures_total", reason=reason)
    lane.browser.activate(models[0], shadow)
    alone.browser.activate(models[0])
    # when
    answers = answer_browsing(lane)
    decided = decide_orders(make_decider(models[0], shadow), *make_orders())  # type: ignore[arg-type]
    # then
    assert (len(answers.rejects), len(decided.rejects)) == (0, 0)
    assert list(map(fields_without_shadow, collect_rows(answers))) == list(
        map(fields_without_shadow, collect_rows(answer_browsing(alone)))
    )
    assert {(row.shadow_version, len(row.shadow)) for row in [*collect_rows(answers), *collect_rows(decided)]} == {
        ("", 0)
    }
    assert read_counter("trial_failures_total", reason=reason) > before


def test_a_shadow_that_can_make_no_part_of_items_is_left_out(
    models: tuple[Model, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    def fail(block: object) -> None:
        raise RuntimeError("no part")

    monkeypatch.setattr(models[1], "item_part", fail)
    lane = BrowsingHarness()
    lane.browser.activate(models[0], TrialModel(models[1], Trial(version="v2")))
    # when
    lane.catalogue.put(make_product("new", price=7))
    answers = answer_browsing(lane)
    # then
    assert (len(answers.rejects), len(answers.lists)) == (0, len(USERS))
    assert {row.shadow_version for row in collect_rows(answers)} == {""}


def test_a_canary_answers_its_users_and_no_others_in_both_lanes(models: tuple[Model, Model]) -> None:
    # given
    canary, lane = TrialModel(models[1], HALF), BrowsingHarness()
    lane.browser.activate(models[0], canary)
    # when
    answers, decided = answer_browsing(lane), decide_orders(make_decider(models[0], canary), *make_orders())  # type: ignore[arg-type]
    # then
    assert 0 < len(CANARY_USERS) < len(USERS)
    told: list[Recommendations | Ranking] = [made for made, _ in answers.lists]
    told += [made for made, _ in answers.rankings]
    told_of_orders = [decision for decision, _ in decided.decisions]
    said: list[ScoredRow | Decision | Recommendations | Ranking] = [*collect_rows(answers), *collect_rows(decided)]
    for one in (*said, *told, *told_of_orders):
        assert one.model_version == ("v2" if one.user_id in CANARY_USERS else "v1")
    assert {d.action for d in told_of_orders if d.user_id in CANARY_USERS} == {"decline"}
    assert {d.action for d in told_of_orders if d.user_id not in CANARY_USERS} == {"approve"}
    assert {row.shadow_version for row in [*collect_rows(answers), *collect_rows(decided)]} == {""}


def test_where_a_canary_fails_the_serving_model_stands_in(
    models: tuple[Model, Model], caplog: pytest.LogCaptureFixture
) -> None:
    # given
    canary, lane = TrialModel(make_broken_model(models[1]), HALF), BrowsingHarness()
    lane.browser.activate(models[0], canary)
    # when
    with caplog.at_level(logging.ERROR):
        answers, decided = answer_browsing(lane), decide_orders(make_decider(models[0], canary), *make_orders())  # type: ignore[arg-type]
    # then
    assert (len(answers.lists), len(decided.decisions)) == (len(USERS), len(USERS))
    assert {row.model_version for row in [*collect_rows(answers), *collect_rows(decided)]} == {"v1"}
    assert answers.rejects + decided.rejects == []
    assert len(caplog.messages) == 1


def test_a_canary_that_gives_no_number_decides_nothing(models: tuple[Model, Model]) -> None:
    canary = TrialModel(make_broken_model(models[1], np.array([np.nan], np.float32)), HALF)

    decided = decide_orders(make_decider(models[0], canary), *make_orders())  # type: ignore[arg-type]

    assert {(d.model_version, d.action) for d, _ in decided.decisions} == {("v1", "approve")}
    assert len(decided.decisions) == len(USERS)


def test_a_challenger_without_a_lane_s_graph_is_not_tried_there(models: tuple[Model, Model], tmp_path: Path) -> None:
    # given
    files = {name: content for name, content in tiny_files().items() if name != "decide.onnx"}
    publish(tmp_path, make_manifest("v3"), files)
    third = Model(read_bundle(tmp_path, "v3"), FEATURES)
    decider = make_decider(models[0], TrialModel(third, Trial(version="v3", share=1.0)))
    # then
    assert [d.model_version for d, _ in decide_orders(decider, make_order("o")).decisions] == ["v1"]


@pytest.fixture
def bundles(tmp_path: Path) -> Iterator[BundleWatcher]:
    """A folder where v1 serves and v2 stands beside."""
    publish_tiny(tmp_path, "v2")
    publish_tiny(tmp_path, "v1")
    made = BundleWatcher(folder=tmp_path, features=FEATURES)
    made.poll(wait=True)
    yield made
    made.close()


def active_versions(lineup: ActiveModels | None) -> tuple[str, str, float | None] | None:
    if lineup is None:
        return None
    model, challenger = lineup
    trial = challenger.trial if challenger else None
    return (model.version if model else "", trial.version if trial else "", trial.share if trial else None)


def test_a_trial_is_taken_up_widened_and_ended_while_the_serving_model_stays(
    bundles: BundleWatcher, tmp_path: Path
) -> None:
    # given
    serving = bundles.serving
    # when
    set_trial(tmp_path, Trial(version="v2"))
    actual = [bundles.poll(wait=True), bundles.poll(wait=True)]
    tried = bundles.active.models[1]
    bundles.mark_active()
    told = read_counter("trial_info", version="v2", share="0")
    set_trial(tmp_path, HALF)
    actual.append(bundles.poll(wait=True))
    assert bundles.active.models[1] is tried
    end_trial(tmp_path)
    actual.append(bundles.poll(wait=True))
    bundles.mark_active()
    # then
    assert list(map(active_versions, actual)) == [("v1", "v2", 0.0), None, ("v1", "v2", 0.5), ("v1", "", None)]
    assert bundles.serving is serving
    assert (told, read_counter("trial_info", version="v2", share="0")) == (1, 0)


def test_who_was_on_trial_serves_without_being_opened_again(bundles: BundleWatcher, tmp_path: Path) -> None:
    # given
    set_trial(tmp_path, Trial(version="v2"))
    bundles.poll(wait=True)
    tried = bundles.active.models[1]
    # when
    end_trial(tmp_path)
    set_current(tmp_path, "v2")
    # then
    assert active_versions(bundles.poll(wait=True)) == ("v2", "", None)
    assert bundles.serving is tried


@pytest.mark.parametrize("bad", ["of the present bundle", "of none", "of a damaged one", "broken"])
def test_a_bad_trial_is_refused_once_with_a_word_and_the_serving_model_is_unharmed(
    bundles: BundleWatcher, tmp_path: Path, bad: str, caplog: pytest.LogCaptureFixture
) -> None:
    # given one that is on
    set_trial(tmp_path, Trial(version="v2"))
    assert active_versions(bundles.poll(wait=True)) == ("v1", "v2", 0.0)
    refused = metrics.BUNDLES_REFUSED._value.get()
    publish_tiny(tmp_path, "v3")
    set_current(tmp_path, "v1")
    (tmp_path / "v3" / "decide.onnx").write_bytes(b"")
    # when
    content = {"of the present bundle": {"version": "v1"}, "of none": {"version": "v9"}, "broken": ["v2"]}
    (tmp_path / "trial.json").write_text(json.dumps(content.get(bad, {"version": "v3"})))
    with caplog.at_level(logging.ERROR):
        actual = [bundles.poll(wait=True), bundles.poll(wait=True)]
    # then
    assert list(map(active_versions, actual)) == [("v1", "", None), None]
    (message,) = caplog.messages
    assert "Nothing is on trial" in message
    assert metrics.BUNDLES_REFUSED._value.get() == refused + 1
    # and a good one after it is taken up
    set_trial(tmp_path, Trial(version="v2"))
    assert active_versions(bundles.poll(wait=True)) == ("v1", "v2", 0.0)


def test_a_trial_without_a_model_to_stand_beside_waits_for_one(tmp_path: Path) -> None:
    # given
    bundles = BundleWatcher(folder=tmp_path, features=FEATURES)
    publish(tmp_path, make_manifest("v2"), tiny_files(), make_current=False)
    set_trial(tmp_path, Trial(version="v2"))
    assert bundles.poll(wait=True) is None
    # when
    publish_tiny(tmp_path, "v1")
    # then
    assert active_versions(bundles.poll(wait=True)) == ("v1", "v2", 0.0)
    bundles.close()


def test_a_bundle_is_opened_beside_the_work(tmp_path: Path) -> None:
    # given
    bundles = BundleWatcher(folder=tmp_path, features=FEATURES)
    publish_tiny(tmp_path, "v1")
    # when it is looked at without waiting
    while (found := bundles.poll()) is None:
        pass
    # then
    assert active_versions(found) == ("v1", "", None)
    assert not bundles.has_loaded
    bundles.close()


def test_an_item_that_only_an_event_names_is_scored_by_both(models: tuple[Model, Model]) -> None:
    lane = BrowsingHarness()
    lane.browser.activate(models[0], TrialModel(models[1], Trial(version="v2")))

    (row,) = lane.answer(make_record(make_click("c", "ghost"), topic="shop.clicks")).scored

    assert "ghost" not in ITEMS
    assert (row.scores["click"], row.shadow["click"]) == ((0.5,), (0.5,))


def test_a_challenger_that_can_more_than_the_serving_model_is_heard_where_nothing_else_answers(
    models: tuple[Model, Model], tmp_path: Path
) -> None:
    # given a serving bundle that decides alone
    files = {
        name: content
        for name, content in tiny_files().items()
        if name not in ("items.onnx", "recommend.onnx", "search.onnx")
    }
    publish(tmp_path, make_manifest("v3"), files)
    lane = BrowsingHarness()
    lane.browser.activate(Model(read_bundle(tmp_path, "v3"), FEATURES), TrialModel(models[1], Trial(version="v2")))
    # when
    rows = lane.answer(make_click_record("c1", "i2")).scored
    # then
    assert [(row.model_version, row.scores, row.shadow_version) for row in rows] == [("", {}, "v2")]
