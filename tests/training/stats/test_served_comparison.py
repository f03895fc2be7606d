"""Two models compared by served scores: paired in shadow mode, with separate users in canary mode."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import numpy as np
import pytest

from contract.bundle import set_current
from contract.errors import BadConfig
from contract.experiment import Trial, set_trial
from contract.messages import Example, to_msgpack
from contract.profiles.erasures import NO_ERASURES
from contract.settings.reading import Settings
from contract.tasks import Task
from tests.model.small import CLICK, FRAUD
from training.__main__ import parse_arguments
from training.commands import compare
from training.metrics.calibration import calibration_error
from training.metrics.losses import log_loss
from training.metrics.ranking import auc, recall_at_fpr
from training.stats.served_comparison import WeightedMetrics, compare_models
from training.stats.served_scores import ServedScore, ServedScoreStore, collect_labelled_scores

FIGURES = {"auc", "log_loss", "ece"}


def make_served_score(
    ident: str,
    user: str,
    label: float,
    *,
    served: float | None = None,
    shadow: float | None = None,
    version: str = "v1",
    ts_ms: int = 0,
    rate: float = 1.0,
    task: Task = FRAUD,
) -> ServedScore:
    return ServedScore(
        example_id=ident,
        revision=0,
        user_id=user,
        ts_ms=ts_ms,
        model_version=version,
        labels={task.name: label},
        served={} if served is None else {task.name: served},
        shadow_version="" if shadow is None else "v2",
        shadow={} if shadow is None else {task.name: shadow},
        negative_rate=rate,
    )


def noisy_probability(rng: np.random.Generator, y: float, noise: float) -> float:
    """A probability that depends on the label, less so with more noise."""
    return float(1 / (1 + np.exp(-(3 * y - 3 + noise * rng.normal()))))


def make_shadowed(seed: int, *, rows: int, noise: tuple[float, float]) -> list[ServedScore]:
    """Five rows of each user, scored by both models."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(rows) < 0.2).astype(float).tolist()
    return [
        make_served_score(
            f"e{n}",
            f"u{n // 5}",
            y,
            served=noisy_probability(rng, y, noise[0]),
            shadow=noisy_probability(rng, y, noise[1]),
        )
        for n, y in enumerate(labels)
    ]


def add_swapped(scores: list[ServedScore]) -> list[ServedScore]:
    """These scores, and again of other users with the models' scores exchanged: both models are then equally good."""
    swapped = [
        msgspec.structs.replace(
            score,
            example_id=f"{score.example_id}'",
            user_id=f"{score.user_id}'",
            served=score.shadow,
            shadow=score.served,
        )
        for score in scores
    ]
    return scores + swapped


def test_every_metric_equals_that_of_evaluations(seed: int) -> None:
    # given predictions with ties
    rng = np.random.default_rng(seed)
    y, p = (rng.random(500) < 0.3).astype(float), np.round(rng.random(500), 2)
    rows = [make_served_score(f"e{n}", f"u{n}", float(label)) for n, label in enumerate(y)]
    weighted = WeightedMetrics(collect_labelled_scores(FRAUD, rows, p.tolist()), is_rare_positive=True)
    # then
    assert weighted.evaluate(np.ones(500, np.int64)) == pytest.approx(
        {
            "auc": auc(y, p),
            "log_loss": log_loss(y, p),
            "ece": calibration_error(y, p),
            "recall_fpr_1": recall_at_fpr(y, p),
        }
    )


def test_a_user_drawn_twice_counts_like_rows_that_occur_twice(seed: int) -> None:
    # given
    rng = np.random.default_rng(seed)
    p, y = rng.random(60), (rng.random(60) < 0.5).astype(float)
    rows = [make_served_score(f"e{n}", f"u{n % 6}", float(label)) for n, label in enumerate(y)]
    count = np.array([2, 0, 1, 1, 3, 0])
    repeated = np.repeat(np.arange(60), count[np.arange(60) % 6])
    # when
    actual = WeightedMetrics(collect_labelled_scores(FRAUD, rows, p.tolist()), is_rare_positive=True).evaluate(count)
    # then
    assert actual["auc"] == pytest.approx(auc(y[repeated], p[repeated]))
    assert actual["log_loss"] == pytest.approx(log_loss(y[repeated], p[repeated]))
    assert actual["recall_fpr_1"] == pytest.approx(recall_at_fpr(y[repeated], p[repeated]))


def test_weights_compensate_for_sampled_negatives(seed: int) -> None:
    # given a calibrated model, with a tenth of the negatives kept
    rng = np.random.default_rng(seed)
    p = rng.random(20_000) * 0.2
    y = rng.random(len(p)) < p
    is_kept = y | (rng.random(len(p)) < 0.1)
    rows = [make_served_score(f"e{n}", f"u{n}", float(label), rate=0.1) for n, label in enumerate(y[is_kept])]
    scores = collect_labelled_scores(FRAUD, rows, p[is_kept].tolist())
    # when
    actual = WeightedMetrics(scores, is_rare_positive=False).evaluate(np.ones(len(rows), np.int64))
    # then
    assert actual["ece"] < 0.02
    assert calibration_error(y[is_kept].astype(float), p[is_kept]) > 0.2
    assert actual["log_loss"] == pytest.approx(log_loss(y.astype(float), p), rel=0.1)
    assert log_loss(y[is_kept].astype(float), p[is_kept]) > 1.5 * log_loss(y.astype(float), p)


def test_a_better_shadow_is_reported_as_better_and_an_equal_one_is_not(seed: int) -> None:
    # given
    better = make_shadowed(seed, rows=1_500, noise=(3.0, 1.0))
    equal = add_swapped(make_shadowed(seed, rows=750, noise=(3.0, 1.0)))
    # when
    (comparison,), (equal_comparison,) = (
        compare_models(rows, [CLICK, FRAUD], "v1", "v2", seed=seed, draws=200) for rows in (better, equal)
    )
    # then
    assert (comparison.way, comparison.serving, comparison.challenger) == ("shadow", "v1", "v2")
    assert set(comparison.tasks) == {"fraud"}
    fraud = comparison.tasks["fraud"]
    assert (fraud.rows, fraud.users) == ((1_500, 1_500), (300, 300))
    assert set(fraud.figures) == FIGURES | {"recall_fpr_1"}
    assert {fraud.figures[name].is_better for name in ("auc", "log_loss")} == {True}
    for metric in fraud.figures.values():
        assert metric.low is not None
        assert metric.high is not None
        assert metric.difference is not None
        assert metric.low <= metric.difference <= metric.high
    assert equal_comparison.tasks["fraud"].figures["auc"].is_better is None


def test_a_worse_shadow_is_reported_as_worse(seed: int) -> None:
    rows = make_shadowed(seed, rows=1_500, noise=(1.0, 3.0))

    (comparison,) = compare_models(rows, [FRAUD], "v1", "v2", seed=seed, draws=200)

    assert [comparison.tasks["fraud"].figures[name].is_better for name in ("auc", "log_loss")] == [False, False]


def test_shadow_mode_uses_the_labelled_rows_that_both_models_scored() -> None:
    # given one row without a shadow score, one of another shadow, one that is not finite, one without a label
    rows = [
        make_served_score("e1", "u1", 1, served=0.9, shadow=0.8),
        make_served_score("e2", "u2", 0, served=0.1, shadow=0.2),
        make_served_score("e3", "u3", 0, served=0.1),
        msgspec.structs.replace(make_served_score("e4", "u4", 0, served=0.1, shadow=0.2), shadow_version="v3"),
        make_served_score("e5", "u5", 0, served=0.1, shadow=float("nan")),
        msgspec.structs.replace(make_served_score("e6", "u6", 0, served=0.1, shadow=0.2), labels={}),
    ]
    # then
    (comparison,) = compare_models(rows, [FRAUD], "v1", "v2", seed=1, draws=10)
    assert comparison.tasks["fraud"].rows == (2, 2)


def test_canary_mode_compares_separate_users_in_the_period_of_both_models(seed: int) -> None:
    # given a better challenger that serves a fifth of the users from 1,000 to 2,000 ms
    rng = np.random.default_rng(seed)
    rows = list[ServedScore]()
    for n in range(4_000):
        user, ts_ms, y = n // 4, n % 4 * 1_000, float(rng.random() < 0.3)
        version = "v2" if user % 5 == 0 and 1_000 <= ts_ms <= 2_000 else "v1"
        noise = 1.0 if version == "v2" else 3.0
        p = noisy_probability(rng, y, noise)
        rows.append(make_served_score(f"e{n}", f"u{user}", y, served=p, version=version, ts_ms=ts_ms))
    # when
    (comparison,) = compare_models(rows, [FRAUD], "v1", "v2", seed=seed, draws=200)
    # then
    fraud = comparison.tasks["fraud"]
    assert (comparison.way, fraud.rows, fraud.users) == ("canary", (1_600, 400), (800, 200))
    assert fraud.figures["auc"].is_better


def test_users_served_by_both_models_are_left_out_of_canary_mode() -> None:
    # given
    rows = [
        make_served_score("e1", "u1", 1, served=0.9, version="v1", ts_ms=1),
        make_served_score("e2", "u2", 0, served=0.1, version="v2", ts_ms=1),
        make_served_score("e3", "u3", 0, served=0.1, version="v1", ts_ms=2),
        make_served_score("e4", "u3", 0, served=0.1, version="v2", ts_ms=2),
        make_served_score("e5", "u4", 0, served=0.1, version="v1", ts_ms=2),
        make_served_score("e6", "u5", 1, served=0.8, version="v2", ts_ms=2),
    ]
    # then
    (comparison,) = compare_models(rows, [FRAUD], "v1", "v2", seed=1, draws=10)
    assert (comparison.tasks["fraud"].rows, comparison.tasks["fraud"].users) == ((2, 2), (2, 2))


def test_models_that_never_served_at_the_same_time_are_not_compared() -> None:
    rows = [
        make_served_score("e1", "u1", 1, served=0.9, version="v1", ts_ms=1),
        make_served_score("e2", "u2", 0, served=0.1, version="v2", ts_ms=2),
    ]

    assert compare_models(rows, [FRAUD], "v1", "v2", seed=1) == []


def make_example(ident: str, revision: int, labels: Mapping[str, float | str]) -> Example:
    return Example(
        example_id=ident,
        revision=revision,
        event_id="o",
        user_id=f"u-{ident}",
        ts_ms=5,
        model_version="v1",
        features="f",
        groups={},
        labels=dict(labels),
        known_ms={},
        served={"fraud": 0.9 if labels.get("fraud") else 0.1},
        shadow_version="v2",
        shadow={"fraud": 0.5},
    )


def test_the_newest_revision_of_an_example_counts_in_any_order() -> None:
    # given
    store = ServedScoreStore()
    for example in (make_example("a", 1, {"fraud": 1}), make_example("a", 0, {"fraud": 0}), make_example("b", 0, {})):
        store.add(to_msgpack(example))
    store.add(b"\xc1 no example")
    # then
    assert [(row.example_id, row.labels) for row in store.rows()] == [("a", {"fraud": 1}), ("b", {})]
    assert (store.unreadable, store.rows(before_ms=5)) == (1, [])


class FakeFeedbackTopic:
    """A feedback topic of these examples."""

    values: tuple[bytes, ...] = ()
    requested_ms: int | None = None

    def __init__(self, **_: object) -> None: ...

    def offsets_for_time(self, ms: int) -> dict[str, int]:
        type(self).requested_ms = ms
        return {"shop.feedback/0": 1}

    def for_each(self, positions: Mapping[str, int], handle: Callable[[bytes], None]) -> None:
        for value in self.values[positions.get("shop.feedback/0", 0) :]:
            handle(value)

    def close(self) -> None: ...


@pytest.fixture
def topic(monkeypatch: pytest.MonkeyPatch) -> type[FakeFeedbackTopic]:
    monkeypatch.setattr(compare, "FeedbackReader", FakeFeedbackTopic)
    monkeypatch.setattr(compare, "fetch_erasures", lambda settings: NO_ERASURES)
    FakeFeedbackTopic.values = tuple(
        to_msgpack(make_example(f"e{n}", 0, {"fraud": float(n % 3 == 0)})) for n in range(30)
    )
    return FakeFeedbackTopic


def command_arguments(tmp_path: Path, *words: str) -> list[str]:
    return ["compare", "--bundles", str(tmp_path / "bundles"), "--out", str(tmp_path / "reports"), *words]


def test_a_running_trial_is_reported_as_table_page_and_json(
    topic: type[FakeFeedbackTopic], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # given
    settings = Settings().model_copy(update={"tasks": (FRAUD,)})
    (tmp_path / "bundles").mkdir()
    set_current(tmp_path / "bundles", "v1")
    set_trial(tmp_path / "bundles", Trial(version="v2"))
    args = parse_arguments(command_arguments(tmp_path, "--since", "24"))
    # when
    assert compare.run(args, settings, None) == 0  # type: ignore[arg-type]  # features are not used
    # then
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    (comparison,) = printed["contests"]
    assert (comparison["way"], comparison["serving"], comparison["challenger"]) == ("shadow", "v1", "v2")
    assert printed["examples"] == 29
    assert comparison["tasks"]["fraud"]["figures"]["auc"]["serving"] == 1
    assert topic.requested_ms is not None
    page = (tmp_path / "reports" / "comparison.html").read_text()
    assert "shadow: v2 against v1" in page
    assert "worse" in page
    assert json.loads((tmp_path / "reports" / "comparison.json").read_text()) == printed["contests"]


def test_without_a_trial_two_versions_are_required(topic: type[FakeFeedbackTopic], tmp_path: Path) -> None:
    settings = Settings().model_copy(update={"tasks": (FRAUD,)})

    with pytest.raises(BadConfig, match="A trial should be on"):
        compare.run(parse_arguments(command_arguments(tmp_path)), settings, None)  # type: ignore[arg-type]
    assert compare.run(parse_arguments(command_arguments(tmp_path, "--versions", "v1", "v2")), settings, None) == 0  # type: ignore[arg-type]


def test_invalid_numbers_are_all_listed_at_once(tmp_path: Path) -> None:
    args = parse_arguments(command_arguments(tmp_path, "--since", "0", "--settle-days", "-1"))

    with pytest.raises(BadConfig) as raised:
        compare.run(args, Settings(), None)  # type: ignore[arg-type]
    assert len(raised.value.errors) == 2
