"""Contests: two models judged by what they said when they served, paired in a shadow, with users apart in a canary."""

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
from contract.settings import Settings
from contract.tasks import Task
from tests.model.small import CLICK, FRAUD
from training.__main__ import parse_arguments
from training.commands import compare
from training.metrics import metrics
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
    """A probability that says the more of the label, the less noise there is."""
    return float(1 / (1 + np.exp(-(3 * y - 3 + noise * rng.normal()))))


def make_shadowed(seed: int, *, rows: int, noise: tuple[float, float]) -> list[ServedScore]:
    """Five rows of each user, of which both models said something."""
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


def test_every_figure_is_the_one_that_evaluations_show(seed: int) -> None:
    # given predictions of which some are equal
    rng = np.random.default_rng(seed)
    y, p = (rng.random(500) < 0.3).astype(float), np.round(rng.random(500), 2)
    rows = [make_served_score(f"e{n}", f"u{n}", float(label)) for n, label in enumerate(y)]
    scale = WeightedMetrics(collect_labelled_scores(FRAUD, rows, p.tolist()), is_alarm=True)
    # then
    assert scale.evaluate(np.ones(500, np.int64)) == pytest.approx(
        {
            "auc": metrics.auc(y, p),
            "log_loss": metrics.log_loss(y, p),
            "ece": metrics.calibration_error(y, p),
            "recall_fpr_1": metrics.recall_at_fpr(y, p),
        }
    )


def test_a_user_who_counts_twice_counts_as_if_their_rows_were_there_twice(seed: int) -> None:
    # given
    rng = np.random.default_rng(seed)
    p, y = rng.random(60), (rng.random(60) < 0.5).astype(float)
    rows = [make_served_score(f"e{n}", f"u{n % 6}", float(label)) for n, label in enumerate(y)]
    count = np.array([2, 0, 1, 1, 3, 0])
    again = np.repeat(np.arange(60), count[np.arange(60) % 6])
    # when
    actual = WeightedMetrics(collect_labelled_scores(FRAUD, rows, p.tolist()), is_alarm=True).evaluate(count)
    # then
    assert actual["auc"] == pytest.approx(metrics.auc(y[again], p[again]))
    assert actual["log_loss"] == pytest.approx(metrics.log_loss(y[again], p[again]))
    assert actual["recall_fpr_1"] == pytest.approx(metrics.recall_at_fpr(y[again], p[again]))


def test_negatives_that_were_left_out_are_weighed_for(seed: int) -> None:
    # given a model that says what is true, of which a tenth of the negatives were kept
    rng = np.random.default_rng(seed)
    p = rng.random(20_000) * 0.2
    y = rng.random(len(p)) < p
    kept = y | (rng.random(len(p)) < 0.1)
    rows = [make_served_score(f"e{n}", f"u{n}", float(label), rate=0.1) for n, label in enumerate(y[kept])]
    # then
    actual = WeightedMetrics(collect_labelled_scores(FRAUD, rows, p[kept].tolist()), is_alarm=False).evaluate(
        np.ones(len(rows), np.int64)
    )
    assert actual["ece"] < 0.01
    assert metrics.calibration_error(y[kept].astype(float), p[kept]) > 0.2
    assert actual["log_loss"] == pytest.approx(metrics.log_loss(y.astype(float), p), rel=0.03)


def test_a_better_shadow_is_found_better_and_one_that_is_alike_is_not(seed: int) -> None:
    # given
    better = make_shadowed(seed, rows=1_500, noise=(3.0, 1.0))
    alike = make_shadowed(seed, rows=1_500, noise=(2.0, 2.0))
    # when
    (one,), (other,) = (
        compare_models(rows, [CLICK, FRAUD], "v1", "v2", seed=seed, draws=200) for rows in (better, alike)
    )
    # then
    assert (one.way, one.serving, one.challenger, set(one.tasks)) == ("shadow", "v1", "v2", {"fraud"})
    fraud = one.tasks["fraud"]
    assert (fraud.rows, fraud.users) == ((1_500, 1_500), (300, 300))
    assert set(fraud.figures) == FIGURES | {"recall_fpr_1"}
    assert {fraud.figures[name].is_better for name in ("auc", "log_loss")} == {True}
    for found in fraud.figures.values():
        assert found.low is not None
        assert found.high is not None
        assert found.difference is not None
        assert found.low <= found.difference <= found.high
    assert other.tasks["fraud"].figures["auc"].is_better is None


def test_a_worse_shadow_is_found_worse(seed: int) -> None:
    (one,) = compare_models(
        make_shadowed(seed, rows=1_500, noise=(1.0, 3.0)), [FRAUD], "v1", "v2", seed=seed, draws=200
    )

    assert [one.tasks["fraud"].figures[name].is_better for name in ("auc", "log_loss")] == [False, False]


def test_a_shadow_is_judged_on_the_rows_of_which_both_said_something() -> None:
    # given one row without a shadow, one of another shadow, one that is not finite, one without a label of the task
    rows = [
        make_served_score("e1", "u1", 1, served=0.9, shadow=0.8),
        make_served_score("e2", "u2", 0, served=0.1, shadow=0.2),
        make_served_score("e3", "u3", 0, served=0.1),
        msgspec.structs.replace(make_served_score("e4", "u4", 0, served=0.1, shadow=0.2), shadow_version="v3"),
        make_served_score("e5", "u5", 0, served=0.1, shadow=float("nan")),
        msgspec.structs.replace(make_served_score("e6", "u6", 0, served=0.1, shadow=0.2), labels={}),
    ]
    # then
    (one,) = compare_models(rows, [FRAUD], "v1", "v2", seed=1, draws=10)
    assert one.tasks["fraud"].rows == (2, 2)


def test_a_canary_compares_users_apart_in_the_time_that_both_answered(seed: int) -> None:
    # given a challenger that says more, and answers a fifth of the users from 1,000 to 2,000
    rng = np.random.default_rng(seed)
    rows = list[ServedScore]()
    for n in range(4_000):
        user, ts_ms, y = n // 4, n % 4 * 1_000, float(rng.random() < 0.3)
        version = "v2" if user % 5 == 0 and 1_000 <= ts_ms <= 2_000 else "v1"
        noise = 1.0 if version == "v2" else 3.0
        p = noisy_probability(rng, y, noise)
        rows.append(make_served_score(f"e{n}", f"u{user}", y, served=p, version=version, ts_ms=ts_ms))
    # when
    (one,) = compare_models(rows, [FRAUD], "v1", "v2", seed=seed, draws=200)
    # then
    fraud = one.tasks["fraud"]
    assert (one.way, fraud.rows, fraud.users) == ("canary", (1_600, 400), (800, 200))
    assert fraud.figures["auc"].is_better


def test_who_met_both_models_is_left_out_of_a_canary() -> None:
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
    (one,) = compare_models(rows, [FRAUD], "v1", "v2", seed=1, draws=10)
    assert (one.tasks["fraud"].rows, one.tasks["fraud"].users) == ((2, 2), (2, 2))


def test_two_models_that_never_met_are_in_no_contest() -> None:
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


def test_the_newest_revision_of_an_example_counts_in_whatever_order_they_come() -> None:
    # given
    heard = ServedScoreStore()
    for one in (make_example("a", 1, {"fraud": 1}), make_example("a", 0, {"fraud": 0}), make_example("b", 0, {})):
        heard.add(to_msgpack(one))
    heard.add(b"\xc1 no example")
    # then
    assert [(row.example_id, row.labels) for row in heard.rows()] == [("a", {"fraud": 1}), ("b", {})]
    assert (heard.unreadable, heard.rows(before_ms=5)) == (1, [])


class FakeFeedbackTopic:
    """A feedback topic of these examples."""

    values: tuple[bytes, ...] = ()
    asked: int | None = None

    def __init__(self, **_: object) -> None: ...

    def offsets_for_time(self, ms: int) -> dict[str, int]:
        type(self).asked = ms
        return {"shop.feedback/0": 1}

    def for_each(self, positions: Mapping[str, int], take: Callable[[bytes], None]) -> None:
        for value in self.values[positions.get("shop.feedback/0", 0) :]:
            take(value)

    def close(self) -> None: ...


@pytest.fixture
def topic(monkeypatch: pytest.MonkeyPatch) -> type[FakeFeedbackTopic]:
    monkeypatch.setattr(compare, "FeedbackReader", FakeFeedbackTopic)
    FakeFeedbackTopic.values = tuple(
        to_msgpack(make_example(f"e{n}", 0, {"fraud": float(n % 3 == 0)})) for n in range(30)
    )
    return FakeFeedbackTopic


def command_arguments(tmp_path: Path, *words: str) -> list[str]:
    return ["compare", "--bundles", str(tmp_path / "bundles"), "--out", str(tmp_path / "reports"), *words]


def test_a_trial_that_is_on_is_reported_in_a_table_on_a_page_and_as_json(
    topic: type[FakeFeedbackTopic], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # given
    settings = Settings().model_copy(update={"tasks": (FRAUD,)})
    (tmp_path / "bundles").mkdir()
    set_current(tmp_path / "bundles", "v1")
    set_trial(tmp_path / "bundles", Trial(version="v2"))
    args = parse_arguments(command_arguments(tmp_path, "--since", "24"))
    # when
    assert compare.run(args, settings, None) == 0  # type: ignore[arg-type]  # features are passed over
    # then
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    (one,) = printed["contests"]
    assert (one["way"], one["serving"], one["challenger"], printed["examples"]) == ("shadow", "v1", "v2", 29)
    assert one["tasks"]["fraud"]["figures"]["auc"]["serving"] == 1
    assert topic.asked is not None
    page = (tmp_path / "reports" / "comparison.html").read_text()
    assert "shadow: v2 beside v1" in page
    assert "worse" in page
    assert json.loads((tmp_path / "reports" / "comparison.json").read_text()) == printed["contests"]


def test_without_a_trial_two_versions_have_to_be_named(topic: type[FakeFeedbackTopic], tmp_path: Path) -> None:
    settings = Settings().model_copy(update={"tasks": (FRAUD,)})

    with pytest.raises(BadConfig, match="A trial should be on"):
        compare.run(parse_arguments(command_arguments(tmp_path)), settings, None)  # type: ignore[arg-type]
    assert compare.run(parse_arguments(command_arguments(tmp_path, "--versions", "v1", "v2")), settings, None) == 0  # type: ignore[arg-type]


def test_wrong_numbers_are_told_at_once(tmp_path: Path) -> None:
    args = parse_arguments(command_arguments(tmp_path, "--since", "0", "--settle-days", "-1"))

    with pytest.raises(BadConfig) as found:
        compare.run(args, Settings(), None)  # type: ignore[arg-type]
    assert len(found.value.errors) == 2
