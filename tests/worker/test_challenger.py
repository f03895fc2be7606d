"""A challenger: heard as a shadow, answering some users as a canary, and never harming anybody."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from contract.bundle import point_to, publish, read_bundle
from contract.encoding import Encoder
from contract.rows import Decision, Ranking, Recommendations, Scored
from contract.trial import Trial, end_trial, point_to_trial
from tests.worker.bundles import ITEMS, manifest, publish_tiny, sigmoid, tiny_files
from tests.worker.lane import Lane, clicked
from tests.worker.shop import FEATURES, click, order, product, record, search
from tests.worker.test_deciding import SETTINGS, decide
from worker import metrics
from worker.answers import Answers
from worker.bundles import Bundles
from worker.challenger import Challenger, Lineup
from worker.deciding import Decider
from worker.runtime import Model, Scores

USERS = [f"u{n}" for n in range(40)]
HALF = Trial(version="v2", share=0.5)
TAKEN = {user for user in USERS if HALF.takes(user)}


@pytest.fixture
def models(tmp_path: Path) -> tuple[Model, Model]:
    """Fraud is likely above an amount of 100 for one, above 50 for the other."""
    publish_tiny(tmp_path, "v1", doubt=100.0)
    publish_tiny(tmp_path, "v2", doubt=50.0)
    one, other = (Model(read_bundle(tmp_path, version), FEATURES) for version in ("v1", "v2"))
    return one, other


class Failing(Model):
    """A model that cannot score anything; or gives no number, or numbers of another shape."""

    said: np.ndarray | None = None

    def run(self, graph: str, blocks: object, **more: object) -> Scores:
        if self.said is None:
            raise RuntimeError("too much for me")
        task = {"decide": "fraud", "search": "relevance"}.get(graph, "click")
        assert isinstance(blocks, dict)
        rows = len(more["item_part"]) if "item_part" in more else len(blocks["order"])  # type: ignore[arg-type]
        return {task: np.tile(self.said, (rows, *[1] * (self.said.ndim - 1)))}


def failing(model: Model, said: np.ndarray | None = None) -> Failing:
    made = Failing.__new__(Failing)
    made.__dict__ |= model.__dict__
    made.said = said
    return made


def counted(name: str, **labels: str) -> float:
    return metrics.REGISTRY.get_sample_value(f"shopstream_{name}", labels) or 0.0


def decider_of(model: Model, challenger: Challenger) -> Decider:
    decider = Decider(settings=SETTINGS, encoder=Encoder(FEATURES))
    decider.serve(model, challenger)
    return decider


def orders_of_all(amount: float = 75.0) -> list[object]:
    return [order(f"o-{user}", user=user, amount=amount) for user in USERS]


def rows_of(answers: Answers) -> list[Scored]:
    return [
        *(row for _, row in answers.decisions),
        *answers.scored,
        *(row for _, row in answers.lists),
        *(row for _, row in answers.rankings),
    ]


def unheard(scored: Scored) -> dict[str, object]:
    return {name: getattr(scored, name) for name in Scored.__struct_fields__ if not name.startswith("shadow")}


def browse(lane: Lane) -> Answers:
    """Everybody clicks, searches and orders."""
    clicks = [clicked(f"c-{user}", "i2", user, n) for n, user in enumerate(USERS)]
    searches = [
        record(search(f"s-{user}", "i1", "ghost", "i3", user=user), 100 + n, topic="shop.searches")
        for n, user in enumerate(USERS)
    ]
    return lane.answer(*clicks, *searches)


def test_a_shadow_s_scores_lie_beside_those_that_were_acted_on(models: tuple[Model, Model]) -> None:
    # given
    decider = decider_of(models[0], Challenger(models[1], Trial(version="v2")))
    # when
    ((decision, scored),) = decide(decider, order("o", amount=75)).decisions
    # then
    assert (decision.model_version, decision.action, scored.model_version) == ("v1", "approve", "v1")
    assert decision.probability["fraud"] < 1e-6
    assert scored.scores == {"fraud": (decision.probability["fraud"],)}
    assert (scored.shadow_version, scored.shadow["fraud"][0] > 0.99) == ("v2", True)


def test_with_a_shadow_every_answer_is_what_it_is_without_one(models: tuple[Model, Model]) -> None:
    # given two lanes, one with a shadow
    alone, heard = Lane(), Lane()
    alone.browser.serve(models[0])
    heard.browser.serve(models[0], Challenger(models[1], Trial(version="v2")))
    # when
    one, other = browse(alone), browse(heard)
    # then
    assert [made for made, _ in one.lists] == [made for made, _ in other.lists]
    assert [made for made, _ in one.rankings] == [made for made, _ in other.rankings]
    assert list(map(unheard, rows_of(one))) == list(map(unheard, rows_of(other)))
    assert {row.shadow_version for row in rows_of(one)} == {""}
    assert {row.shadow_version for row in rows_of(other)} == {"v2"}


def test_a_shadow_is_asked_about_the_very_rows_that_are_logged(models: tuple[Model, Model]) -> None:
    # given a challenger of the same weights
    lane = Lane()
    lane.browser.serve(models[0], Challenger(models[1], Trial(version="v2")))
    # when
    rows = rows_of(browse(lane))
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
    lane = Lane()
    lane.browser.serve(one, Challenger(other, Trial(version="v2")))
    # when
    lane.catalogue.put(product("i0", price=5))
    lane.catalogue.put(product("new", price=7))
    rows = lane.answer(clicked("c1", "i0"), clicked("c2", "new", "v", 1)).scored
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
    shadow = Challenger(failing(models[1], said), Trial(version="v2"))
    lane, alone, before = Lane(), Lane(), counted("trial_failures_total", reason=reason)
    lane.browser.serve(models[0], shadow)
    alone.browser.serve(models[0])
    # when
    answers = browse(lane)
    decided = decide(decider_of(models[0], shadow), *orders_of_all())  # type: ignore[arg-type]
    # then
    assert (len(answers.rejects), len(decided.rejects)) == (0, 0)
    assert list(map(unheard, rows_of(answers))) == list(map(unheard, rows_of(browse(alone))))
    assert {(row.shadow_version, len(row.shadow)) for row in [*rows_of(answers), *rows_of(decided)]} == {("", 0)}
    assert counted("trial_failures_total", reason=reason) > before


def test_a_shadow_that_can_make_no_part_of_items_is_left_out(
    models: tuple[Model, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    def fail(block: object) -> None:
        raise RuntimeError("no part")

    monkeypatch.setattr(models[1], "item_part", fail)
    lane = Lane()
    lane.browser.serve(models[0], Challenger(models[1], Trial(version="v2")))
    # when
    lane.catalogue.put(product("new", price=7))
    answers = browse(lane)
    # then
    assert (len(answers.rejects), len(answers.lists)) == (0, len(USERS))
    assert {row.shadow_version for row in rows_of(answers)} == {""}


def test_a_canary_answers_its_users_and_no_others_in_both_lanes(models: tuple[Model, Model]) -> None:
    # given
    canary, lane = Challenger(models[1], HALF), Lane()
    lane.browser.serve(models[0], canary)
    # when
    answers, decided = browse(lane), decide(decider_of(models[0], canary), *orders_of_all())  # type: ignore[arg-type]
    # then
    assert 0 < len(TAKEN) < len(USERS)
    told: list[Recommendations | Ranking] = [made for made, _ in answers.lists]
    told += [made for made, _ in answers.rankings]
    told_of_orders = [decision for decision, _ in decided.decisions]
    said: list[Scored | Decision | Recommendations | Ranking] = [*rows_of(answers), *rows_of(decided)]
    for one in (*said, *told, *told_of_orders):
        assert one.model_version == ("v2" if one.user_id in TAKEN else "v1")
    assert {d.action for d in told_of_orders if d.user_id in TAKEN} == {"decline"}
    assert {d.action for d in told_of_orders if d.user_id not in TAKEN} == {"approve"}
    assert {row.shadow_version for row in [*rows_of(answers), *rows_of(decided)]} == {""}


def test_where_a_canary_fails_the_serving_model_stands_in(
    models: tuple[Model, Model], caplog: pytest.LogCaptureFixture
) -> None:
    # given
    canary, lane = Challenger(failing(models[1]), HALF), Lane()
    lane.browser.serve(models[0], canary)
    # when
    with caplog.at_level(logging.ERROR):
        answers, decided = browse(lane), decide(decider_of(models[0], canary), *orders_of_all())  # type: ignore[arg-type]
    # then
    assert (len(answers.lists), len(decided.decisions)) == (len(USERS), len(USERS))
    assert {row.model_version for row in [*rows_of(answers), *rows_of(decided)]} == {"v1"}
    assert answers.rejects + decided.rejects == []
    assert len(caplog.messages) == 1


def test_a_canary_that_gives_no_number_decides_nothing(models: tuple[Model, Model]) -> None:
    canary = Challenger(failing(models[1], np.array([np.nan], np.float32)), HALF)

    decided = decide(decider_of(models[0], canary), *orders_of_all())  # type: ignore[arg-type]

    assert {(d.model_version, d.action) for d, _ in decided.decisions} == {("v1", "approve")}
    assert len(decided.decisions) == len(USERS)


def test_a_challenger_without_a_lane_s_graph_is_not_tried_there(models: tuple[Model, Model], tmp_path: Path) -> None:
    # given
    files = {name: content for name, content in tiny_files().items() if name != "decide.onnx"}
    publish(tmp_path, manifest("v3"), files)
    third = Model(read_bundle(tmp_path, "v3"), FEATURES)
    decider = decider_of(models[0], Challenger(third, Trial(version="v3", share=1.0)))
    # then
    assert [d.model_version for d, _ in decide(decider, order("o")).decisions] == ["v1"]


@pytest.fixture
def bundles(tmp_path: Path) -> Iterator[Bundles]:
    """A folder where v1 serves and v2 stands beside."""
    publish_tiny(tmp_path, "v2")
    publish_tiny(tmp_path, "v1")
    made = Bundles(folder=tmp_path, features=FEATURES)
    made.look(waits=True)
    yield made
    made.close()


def shown(lineup: Lineup | None) -> tuple[str, str, float | None] | None:
    if lineup is None:
        return None
    model, challenger = lineup
    trial = challenger.trial if challenger else None
    return (model.version if model else "", trial.version if trial else "", trial.share if trial else None)


def test_a_trial_is_taken_up_widened_and_ended_while_the_serving_model_stays(bundles: Bundles, tmp_path: Path) -> None:
    # given
    serving = bundles.model
    # when
    point_to_trial(tmp_path, Trial(version="v2"))
    found = [bundles.look(waits=True), bundles.look(waits=True)]
    tried = bundles.lineup.models[1]
    bundles.show()
    told = counted("trial_info", version="v2", share="0")
    point_to_trial(tmp_path, HALF)
    found.append(bundles.look(waits=True))
    assert bundles.lineup.models[1] is tried
    end_trial(tmp_path)
    found.append(bundles.look(waits=True))
    bundles.show()
    # then
    assert list(map(shown, found)) == [("v1", "v2", 0.0), None, ("v1", "v2", 0.5), ("v1", "", None)]
    assert bundles.model is serving
    assert (told, counted("trial_info", version="v2", share="0")) == (1, 0)


def test_who_was_on_trial_serves_without_being_opened_again(bundles: Bundles, tmp_path: Path) -> None:
    # given
    point_to_trial(tmp_path, Trial(version="v2"))
    bundles.look(waits=True)
    tried = bundles.lineup.models[1]
    # when
    end_trial(tmp_path)
    point_to(tmp_path, "v2")
    # then
    assert shown(bundles.look(waits=True)) == ("v2", "", None)
    assert bundles.model is tried


@pytest.mark.parametrize("bad", ["of the present bundle", "of none", "of a damaged one", "broken"])
def test_a_bad_trial_is_refused_once_with_a_word_and_the_serving_model_is_unharmed(
    bundles: Bundles, tmp_path: Path, bad: str, caplog: pytest.LogCaptureFixture
) -> None:
    # given one that is on
    point_to_trial(tmp_path, Trial(version="v2"))
    assert shown(bundles.look(waits=True)) == ("v1", "v2", 0.0)
    refused = metrics.REFUSED._value.get()
    publish_tiny(tmp_path, "v3")
    point_to(tmp_path, "v1")
    (tmp_path / "v3" / "decide.onnx").write_bytes(b"")
    # when
    content = {"of the present bundle": {"version": "v1"}, "of none": {"version": "v9"}, "broken": ["v2"]}
    (tmp_path / "trial.json").write_text(json.dumps(content.get(bad, {"version": "v3"})))
    with caplog.at_level(logging.ERROR):
        found = [bundles.look(waits=True), bundles.look(waits=True)]
    # then
    assert list(map(shown, found)) == [("v1", "", None), None]
    (message,) = caplog.messages
    assert "Nothing is on trial" in message
    assert metrics.REFUSED._value.get() == refused + 1
    # and a good one after it is taken up
    point_to_trial(tmp_path, Trial(version="v2"))
    assert shown(bundles.look(waits=True)) == ("v1", "v2", 0.0)


def test_a_trial_without_a_model_to_stand_beside_waits_for_one(tmp_path: Path) -> None:
    # given
    bundles = Bundles(folder=tmp_path, features=FEATURES)
    publish(tmp_path, manifest("v2"), tiny_files(), points=False)
    point_to_trial(tmp_path, Trial(version="v2"))
    assert bundles.look(waits=True) is None
    # when
    publish_tiny(tmp_path, "v1")
    # then
    assert shown(bundles.look(waits=True)) == ("v1", "v2", 0.0)
    bundles.close()


def test_a_bundle_is_opened_beside_the_work(tmp_path: Path) -> None:
    # given
    bundles = Bundles(folder=tmp_path, features=FEATURES)
    publish_tiny(tmp_path, "v1")
    # when it is looked at without waiting
    while (found := bundles.look()) is None:
        pass
    # then
    assert shown(found) == ("v1", "", None)
    assert not bundles.opened
    bundles.close()


def test_an_item_that_only_an_event_names_is_scored_by_both(models: tuple[Model, Model]) -> None:
    lane = Lane()
    lane.browser.serve(models[0], Challenger(models[1], Trial(version="v2")))

    (row,) = lane.answer(record(click("c", "ghost"), topic="shop.clicks")).scored

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
    publish(tmp_path, manifest("v3"), files)
    lane = Lane()
    lane.browser.serve(Model(read_bundle(tmp_path, "v3"), FEATURES), Challenger(models[1], Trial(version="v2")))
    # when
    rows = lane.answer(clicked("c1", "i2")).scored
    # then
    assert [(row.model_version, row.scores, row.shadow_version) for row in rows] == [("", {}, "v2")]
