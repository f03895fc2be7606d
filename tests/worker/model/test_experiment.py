"""A trial model: a shadow is scored and logged, a canary answers its users, and a failure affects no answer."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from contract.bundle import publish, read_bundle, set_current
from contract.experiment import Trial, end_trial, set_trial
from contract.messages import Decision, Ranking, Recommendations, ScoredRow
from testkit.environment.tiny_bundle import ITEMS, make_manifest, publish_tiny, sigmoid, tiny_files
from testkit.metrics import read_metric
from tests.worker.answers import read_answers, read_messages, read_rows
from tests.worker.browsing_harness import BrowsingHarness, make_click_record
from tests.worker.events import FEATURES, make_click, make_order, make_product, make_record, make_search
from tests.worker.order_scoring import decide_orders, make_scorer
from worker.model.bundle_watcher import BundleWatcher
from worker.model.experiment import ActiveModels, TrialModel
from worker.model.onnx_model import Model, Scores
from worker.ops import metrics
from worker.records.answers import CLICK
from worker.scoring.results import BatchResults
from worker.scoring.scorer import LaneScorer

USERS = [f"u{n}" for n in range(40)]
HALF = Trial(version="v2", share=0.5)
CANARY_USERS = {user for user in USERS if HALF.includes(user)}


@pytest.fixture
def models(tmp_path: Path) -> tuple[Model, Model]:
    """Two models: fraud is likely above an amount of 100 for the first, above 50 for the second."""
    publish_tiny(tmp_path, "v1", threshold=100.0)
    publish_tiny(tmp_path, "v2", threshold=50.0)
    return Model(read_bundle(tmp_path, "v1"), FEATURES), Model(read_bundle(tmp_path, "v2"), FEATURES)


class BrokenModel(Model):
    """A model that raises on every run, or returns `output` for each row."""

    output: np.ndarray | None = None

    def run(self, graph: str, blocks: object, **extra: object) -> Scores:
        if self.output is None:
            raise RuntimeError("cannot score")
        task = {"decide": "fraud", "search": "relevance"}.get(graph, "click")
        assert isinstance(blocks, dict)
        rows = len(extra["item_part"]) if "item_part" in extra else len(blocks["order"])  # type: ignore[arg-type]
        return {task: np.tile(self.output, (rows, *[1] * (self.output.ndim - 1)))}


def make_broken_model(model: Model, output: np.ndarray | None = None) -> BrokenModel:
    broken = BrokenModel.__new__(BrokenModel)
    broken.__dict__ |= model.__dict__
    broken.output = output
    return broken


def read_counter(name: str, **labels: str) -> float:
    return metrics.REGISTRY.get_sample_value(f"shopstream_{name}", labels) or 0.0


def make_order_scorer(model: Model, trial_model: TrialModel) -> LaneScorer:
    scorer = make_scorer()
    scorer.activate(model, trial_model)
    return scorer


def make_orders(amount: float = 75.0) -> list[object]:
    return [make_order(f"o-{user}", user=user, amount=amount) for user in USERS]


def fields_without_shadow(scored: ScoredRow) -> dict[str, object]:
    return {name: getattr(scored, name) for name in ScoredRow.__struct_fields__ if not name.startswith("shadow")}


def answer_browsing(lane: BrowsingHarness) -> BatchResults:
    """The answers to a click and a search of each user."""
    clicks = [make_click_record(f"c-{user}", "i2", user, n) for n, user in enumerate(USERS)]
    searches = [
        make_record(make_search(f"s-{user}", "i1", "ghost", "i3", user=user), 100 + n, topic="shop.searches")
        for n, user in enumerate(USERS)
    ]
    return lane.answer(*clicks, *searches)


def test_shadow_scores_are_logged_with_the_scores_that_decided(models: tuple[Model, Model]) -> None:
    # given
    scorer = make_order_scorer(models[0], TrialModel(models[1], Trial(version="v2")))
    # when
    ((decision, scored),) = read_answers(decide_orders(scorer, make_order("o", amount=75)), Decision)
    # then
    assert (decision.model_version, decision.action, scored.model_version) == ("v1", "approve", "v1")
    assert decision.probability["fraud"] < 1e-6
    assert scored.scores == {"fraud": (decision.probability["fraud"],)}
    assert (scored.shadow_version, scored.shadow["fraud"][0] > 0.99) == ("v2", True)


def test_a_shadow_changes_no_answer(models: tuple[Model, Model]) -> None:
    # given two lanes, one with a shadow
    plain_lane, shadow_lane = BrowsingHarness(), BrowsingHarness()
    plain_lane.scorer.activate(models[0])
    shadow_lane.scorer.activate(models[0], TrialModel(models[1], Trial(version="v2")))
    # when
    plain, shadowed = answer_browsing(plain_lane), answer_browsing(shadow_lane)
    # then
    assert read_messages(plain, Recommendations) == read_messages(shadowed, Recommendations)
    assert read_messages(plain, Ranking) == read_messages(shadowed, Ranking)
    plain_rows, shadowed_rows = read_rows(plain), read_rows(shadowed)
    assert list(map(fields_without_shadow, plain_rows)) == list(map(fields_without_shadow, shadowed_rows))
    assert {row.shadow_version for row in plain_rows} == {""}
    assert {row.shadow_version for row in shadowed_rows} == {"v2"}


def test_a_shadow_scores_exactly_the_logged_rows(models: tuple[Model, Model]) -> None:
    # given a shadow that scores lists and searches as the serving model does
    lane = BrowsingHarness()
    lane.scorer.activate(models[0], TrialModel(models[1], Trial(version="v2")))
    # when
    rows = read_rows(answer_browsing(lane))
    # then
    assert len(rows) == 3 * len(USERS)
    for row in rows:
        assert row.shadow.keys() == row.scores.keys()
        np.testing.assert_allclose(list(row.shadow.values()), list(row.scores.values()), 1e-6)
        assert all(len(values) == len(row.items) for values in row.shadow.values())


def test_new_and_changed_items_have_shadow_embeddings_too(
    models: tuple[Model, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a shadow with other item embeddings
    serving, shadow = models
    monkeypatch.setattr(shadow, "item_part", lambda block: -serving.item_part(block))
    lane = BrowsingHarness()
    lane.scorer.activate(serving, TrialModel(shadow, Trial(version="v2")))
    # when
    lane.catalogue.put(make_product("i0", price=5))
    lane.catalogue.put(make_product("new", price=7))
    rows = read_rows(lane.answer(make_click_record("c1", "i0"), make_click_record("c2", "new", "v", 1)), CLICK)
    # then
    for row, price in zip(rows, (5, 7), strict=True):
        np.testing.assert_allclose(row.scores["click"], sigmoid(np.array([price], np.float32)), 1e-5)
        np.testing.assert_allclose(row.shadow["click"], sigmoid(np.array([-price], np.float32)), 1e-5)


@pytest.mark.parametrize(
    ("output", "reason"),
    [(None, "error"), (np.array([np.nan], np.float32), "not_finite"), (np.zeros((1, 2), np.float32), "error")],
)
def test_a_failing_shadow_changes_no_answer_and_is_counted(
    models: tuple[Model, Model],
    output: np.ndarray | None,
    reason: str,
) -> None:
    # given
    shadow = TrialModel(make_broken_model(models[1], output), Trial(version="v2"))
    lane, plain_lane = BrowsingHarness(), BrowsingHarness()
    failures = read_counter("trial_failures_total", reason=reason)
    lane.scorer.activate(models[0], shadow)
    plain_lane.scorer.activate(models[0])
    # when
    answers = answer_browsing(lane)
    decided = decide_orders(make_order_scorer(models[0], shadow), *make_orders())  # type: ignore[arg-type]
    # then
    assert (len(answers.rejects), len(decided.rejects)) == (0, 0)
    assert list(map(fields_without_shadow, read_rows(answers))) == list(
        map(fields_without_shadow, read_rows(answer_browsing(plain_lane)))
    )
    assert {(row.shadow_version, len(row.shadow)) for row in [*read_rows(answers), *read_rows(decided)]} == {("", 0)}
    assert read_counter("trial_failures_total", reason=reason) > failures


def test_a_shadow_without_item_embeddings_is_left_out(
    models: tuple[Model, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    def fail(block: object) -> None:
        raise RuntimeError("no embeddings")

    monkeypatch.setattr(models[1], "item_part", fail)
    lane = BrowsingHarness()
    lane.scorer.activate(models[0], TrialModel(models[1], Trial(version="v2")))
    # when
    lane.catalogue.put(make_product("new", price=7))
    answers = answer_browsing(lane)
    # then
    assert (len(answers.rejects), len(read_messages(answers, Recommendations))) == (0, len(USERS))
    assert {row.shadow_version for row in read_rows(answers)} == {""}


def test_a_canary_answers_exactly_its_users_in_both_lanes(models: tuple[Model, Model]) -> None:
    # given
    canary, lane = TrialModel(models[1], HALF), BrowsingHarness()
    lane.scorer.activate(models[0], canary)
    # when
    answers, decided = answer_browsing(lane), decide_orders(make_order_scorer(models[0], canary), *make_orders())  # type: ignore[arg-type]
    # then
    assert 0 < len(CANARY_USERS) < len(USERS)
    decisions = read_messages(decided, Decision)
    rows = [*read_rows(answers), *read_rows(decided)]
    messages: list[ScoredRow | Decision | Recommendations | Ranking] = [*rows, *decisions]
    messages += read_messages(answers, Recommendations)
    messages += read_messages(answers, Ranking)
    for message in messages:
        assert message.model_version == ("v2" if message.user_id in CANARY_USERS else "v1")
    assert {d.action for d in decisions if d.user_id in CANARY_USERS} == {"decline"}
    assert {d.action for d in decisions if d.user_id not in CANARY_USERS} == {"approve"}
    assert {row.shadow_version for row in rows} == {""}


def test_the_serving_model_answers_where_a_canary_fails(
    models: tuple[Model, Model], caplog: pytest.LogCaptureFixture
) -> None:
    # given
    canary, lane = TrialModel(make_broken_model(models[1]), HALF), BrowsingHarness()
    lane.scorer.activate(models[0], canary)
    # when
    with caplog.at_level(logging.ERROR):
        answers, decided = answer_browsing(lane), decide_orders(make_order_scorer(models[0], canary), *make_orders())  # type: ignore[arg-type]
    # then
    assert (len(read_messages(answers, Recommendations)), len(read_messages(decided, Decision))) == (
        len(USERS),
        len(USERS),
    )
    assert {row.model_version for row in [*read_rows(answers), *read_rows(decided)]} == {"v1"}
    assert answers.rejects + decided.rejects == []
    (record,) = caplog.records
    assert record.exc_info


def test_a_canary_with_non_finite_scores_decides_no_order(models: tuple[Model, Model]) -> None:
    canary = TrialModel(make_broken_model(models[1], np.array([np.nan], np.float32)), HALF)

    decided = decide_orders(make_order_scorer(models[0], canary), *make_orders())  # type: ignore[arg-type]

    assert {(d.model_version, d.action) for d in read_messages(decided, Decision)} == {("v1", "approve")}
    assert len(read_messages(decided, Decision)) == len(USERS)


def test_a_trial_model_without_a_lane_s_graph_is_not_used_there(models: tuple[Model, Model], tmp_path: Path) -> None:
    # given
    files = {name: content for name, content in tiny_files().items() if name != "decide.onnx"}
    publish(tmp_path, make_manifest("v3"), files)
    third = Model(read_bundle(tmp_path, "v3"), FEATURES)
    scorer = make_order_scorer(models[0], TrialModel(third, Trial(version="v3", share=1.0)))
    # then
    assert [d.model_version for d in read_messages(decide_orders(scorer, make_order("o")), Decision)] == ["v1"]


@pytest.fixture
def watcher(tmp_path: Path) -> Iterator[BundleWatcher]:
    """A watcher of a folder with two watcher, of which v1 serves."""
    publish_tiny(tmp_path, "v2")
    publish_tiny(tmp_path, "v1")
    watcher = BundleWatcher(folder=tmp_path, features=FEATURES)
    watcher.poll(wait=True)
    yield watcher
    watcher.close()


def active_versions(active: ActiveModels | None) -> tuple[str, str, float | None] | None:
    if active is None:
        return None
    model, trial_model = active
    trial = trial_model.trial if trial_model else None
    return (model.version if model else "", trial.version if trial else "", trial.share if trial else None)


def test_a_trial_starts_widens_and_ends_while_the_serving_model_stays(watcher: BundleWatcher, tmp_path: Path) -> None:
    # given
    serving = watcher.serving
    # when
    set_trial(tmp_path, Trial(version="v2"))
    actual = [watcher.poll(wait=True), watcher.poll(wait=True)]
    trial_model = watcher.active.models[1]
    watcher.mark_active()
    trial_info = read_counter("trial_info", version="v2", share="0")
    set_trial(tmp_path, HALF)
    actual.append(watcher.poll(wait=True))
    assert watcher.active.models[1] is trial_model
    end_trial(tmp_path)
    actual.append(watcher.poll(wait=True))
    watcher.mark_active()
    # then
    assert list(map(active_versions, actual)) == [("v1", "v2", 0.0), None, ("v1", "v2", 0.5), ("v1", "", None)]
    assert watcher.serving is serving
    assert (trial_info, read_counter("trial_info", version="v2", share="0")) == (1, 0)


def test_a_promoted_trial_model_is_not_loaded_again(watcher: BundleWatcher, tmp_path: Path) -> None:
    # given
    set_trial(tmp_path, Trial(version="v2"))
    watcher.poll(wait=True)
    trial_model = watcher.active.models[1]
    # when
    end_trial(tmp_path)
    set_current(tmp_path, "v2")
    # then
    assert active_versions(watcher.poll(wait=True)) == ("v2", "", None)
    assert watcher.serving is trial_model


@pytest.mark.parametrize("bad", ["of the serving bundle", "of a missing bundle", "of a damaged bundle", "broken"])
def test_an_invalid_trial_is_rejected_once_and_the_serving_model_stays(
    watcher: BundleWatcher, tmp_path: Path, bad: str, caplog: pytest.LogCaptureFixture
) -> None:
    # given an active trial
    set_trial(tmp_path, Trial(version="v2"))
    assert active_versions(watcher.poll(wait=True)) == ("v1", "v2", 0.0)
    rejected = read_metric(metrics.BUNDLES_REFUSED)
    publish_tiny(tmp_path, "v3")
    set_current(tmp_path, "v1")
    (tmp_path / "v3" / "decide.onnx").write_bytes(b"")
    # when
    content = {"of the serving bundle": {"version": "v1"}, "of a missing bundle": {"version": "v9"}, "broken": ["v2"]}
    (tmp_path / "trial.json").write_text(json.dumps(content.get(bad, {"version": "v3"})))
    with caplog.at_level(logging.ERROR):
        actual = [watcher.poll(wait=True), watcher.poll(wait=True)]
    # then
    assert list(map(active_versions, actual)) == [("v1", "", None), None]
    (message,) = caplog.messages
    assert "No trial is active" in message
    assert read_metric(metrics.BUNDLES_REFUSED) == rejected + 1
    # and a valid trial after it is activated
    set_trial(tmp_path, Trial(version="v2"))
    assert active_versions(watcher.poll(wait=True)) == ("v1", "v2", 0.0)


def test_a_trial_without_a_serving_model_waits_for_one(tmp_path: Path) -> None:
    # given
    watcher = BundleWatcher(folder=tmp_path, features=FEATURES)
    publish(tmp_path, make_manifest("v2"), tiny_files(), make_current=False)
    set_trial(tmp_path, Trial(version="v2"))
    assert watcher.poll(wait=True) is None
    # when
    publish_tiny(tmp_path, "v1")
    # then
    assert active_versions(watcher.poll(wait=True)) == ("v1", "v2", 0.0)
    watcher.close()


def test_a_bundle_is_loaded_in_the_background(tmp_path: Path) -> None:
    # given
    watcher = BundleWatcher(folder=tmp_path, features=FEATURES)
    publish_tiny(tmp_path, "v1")
    # when it is polled without waiting
    while (active := watcher.poll()) is None:
        pass
    # then
    assert active_versions(active) == ("v1", "", None)
    assert not watcher.has_loaded
    watcher.close()


def test_an_item_without_a_product_is_scored_by_both_models(models: tuple[Model, Model]) -> None:
    lane = BrowsingHarness()
    lane.scorer.activate(models[0], TrialModel(models[1], Trial(version="v2")))

    (row,) = read_rows(lane.answer(make_record(make_click("c", "ghost"), topic="shop.clicks")), CLICK)

    assert "ghost" not in ITEMS
    assert (row.scores["click"], row.shadow["click"]) == ((0.5,), (0.5,))


def test_a_shadow_is_scored_where_the_serving_model_lacks_the_graph(
    models: tuple[Model, Model], tmp_path: Path
) -> None:
    # given a serving bundle with the decide graph alone
    files = {
        name: content
        for name, content in tiny_files().items()
        if name not in ("items.onnx", "recommend.onnx", "search.onnx")
    }
    publish(tmp_path, make_manifest("v3"), files)
    lane = BrowsingHarness()
    lane.scorer.activate(Model(read_bundle(tmp_path, "v3"), FEATURES), TrialModel(models[1], Trial(version="v2")))
    # when
    rows = read_rows(lane.answer(make_click_record("c1", "i2")), CLICK)
    # then
    assert [(row.model_version, row.scores, row.shadow_version) for row in rows] == [("", {}, "v2")]
