"""The fraud bench: when truths arrive, what a week learns from and is judged by, and what is kept."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.quality.fraud import features as fraud_replay
from bench.quality.fraud.command import AIMS, FraudBench, find_leaks, find_missed_aims, main
from bench.quality.fraud.dataset import DAY_MS, DELAY_MS, FILE, Payments, iterate_arrivals, read_payments
from bench.quality.fraud.features import DECISION_GROUPS, load_or_replay, replay_blocks
from bench.quality.fraud.methods import FraudData, predict_with_trees, sample_negatives, select_features
from bench.quality.fraud.protocol import (
    FraudFigures,
    WeekSplit,
    average_figures,
    evaluate_predictions,
    parse_day,
    select_columns,
    split_week,
)
from contract.features.declaration import FeatureSet, read_features
from contract.profiles.entity_updates import extract_updates
from testkit.checkout import ROOT

START: int = parse_day("2018-04-01")


def make_payments(*payment: tuple[float, int, int, float, int]) -> Payments:
    """Payments of (days since the start, customer, terminal, amount, fraud)."""
    days, customer, terminal, amount, fraud = (np.array(column) for column in zip(*payment, strict=True))
    ts_ms = START * DAY_MS + np.round(days * DAY_MS).astype(np.int64)
    return Payments(ts_ms, customer, terminal, amount.astype(float), fraud.astype(float))


def make_many_payments(rows: int, seed: int, days: float = 40) -> Payments:
    """Payments of which those above 200 are frauds."""
    rng = np.random.default_rng(seed)
    amount = rng.uniform(1, 250, rows).round(2)
    each = (np.sort(rng.uniform(0, days, rows)), rng.integers(0, 60, rows), rng.integers(0, 30, rows))
    return make_payments(*zip(*each, amount, amount > 200, strict=True))


@pytest.fixture(scope="module")
def features() -> FeatureSet:
    return read_features(ROOT / "features.toml")


def read_column(features: FeatureSet, name: str, blocks: fraud_replay.Blocks) -> list[float]:
    group = next(feature.group for feature in features.features if feature.name == name)
    at = [feature.name for feature in features.numbers(group)].index(name)
    return list(blocks[group].numbers[:, at].tolist())


def test_a_truth_arrives_seven_days_after_its_payment_and_before_a_payment_of_that_millisecond() -> None:
    history = make_payments((0, 1, 1, 5.0, 1), (6.9, 2, 2, 5.0, 0), (7, 3, 3, 5.0, 0), (8, 1, 1, 5.0, 0))

    stretches = list(iterate_arrivals(history, 2))

    arrivals = [arrival for stretch in stretches for arrival in stretch.arrivals]
    assert [arrival.event.event_id for arrival in arrivals] == [
        "payment-0",
        "payment-1",
        "truth-0",
        "payment-2",
        "payment-3",
    ]
    assert [(arrival.source, arrival.offset) for arrival in arrivals] == [
        ("orders/0", 0),
        ("orders/0", 1),
        ("judgements/0", 0),
        ("orders/0", 2),
        ("orders/0", 3),
    ]
    assert arrivals[2].event.ts_ms == history.ts_ms[0] + DELAY_MS
    assert [stretch.order_indices.tolist() for stretch in stretches] == [[0, 1], [1], [0]]
    assert [stretch.payment_rows.tolist() for stretch in stretches] == [[0, 1], [2], [3]]


def test_a_truth_judges_all_that_its_payment_touches() -> None:
    history = make_payments((0, 4, 9, 12.34, 1))

    touched = {entity for entity, _ in extract_updates(history.to_order(0))}

    assert set(history.to_judgement(0).entities) == touched == {"user:4", "card:4", "item:payment", "seller:9"}


def test_no_payment_is_known_as_fraud_a_millisecond_before_its_truth_arrives(features: FeatureSet) -> None:
    before = 7 - 1 / DAY_MS
    history = make_payments((0, 1, 5, 20.0, 1), (before, 2, 5, 10.0, 0), (7, 3, 5, 10.0, 0))

    blocks = replay_blocks(history, features, 1)

    assert read_column(features, "seller_fraud_bad", blocks) == [0, 1]
    assert read_column(features, "order_amount", blocks) == [10, 10]


def test_what_profiles_knew_does_not_depend_on_how_much_is_folded_at_once(
    features: FeatureSet, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = make_many_payments(120, seed)
    whole = replay_blocks(history, features, 20)

    monkeypatch.setattr(fraud_replay, "CHUNK_ARRIVALS", 13)
    cut = replay_blocks(history, features, 20)

    for group in DECISION_GROUPS:
        np.testing.assert_array_equal(cut[group].numbers, whole[group].numbers)
        np.testing.assert_array_equal(cut[group].ids, whole[group].ids)


def test_what_profiles_knew_is_kept_until_the_data_change(
    features: FeatureSet, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    history, calls = make_many_payments(50, seed), list[int]()

    def counted(*given: object) -> fraud_replay.Blocks:
        calls.append(1)
        return replay_blocks(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(fraud_replay, "replay_blocks", counted)
    (tmp_path / FILE.parent).mkdir()
    (tmp_path / FILE).write_bytes(b"some")

    made = load_or_replay(history, features, 10, tmp_path, tmp_path / "kept")
    again = load_or_replay(history, features, 10, tmp_path, tmp_path / "kept")

    np.testing.assert_array_equal(made["order"].numbers, again["order"].numbers)
    assert len(calls) == 1
    (tmp_path / FILE).write_bytes(b"other")
    load_or_replay(history, features, 10, tmp_path, tmp_path / "kept")
    load_or_replay(history, features, 11, tmp_path, tmp_path / "kept")
    assert len(calls) == 3


def test_payments_are_read_in_the_order_of_time_until_a_moment(tmp_path: Path) -> None:
    (tmp_path / FILE.parent).mkdir()
    table = {
        "ts_ms": [30, 10, 20],
        "customer_id": [3, 1, 2],
        "terminal_id": [6, 4, 5],
        "amount": [3.0, 1.0, 2.004],
        "is_fraud": [0, 1, 0],
        "fraud_scenario": [0, 1, 0],
    }
    pq.write_table(pa.table(table), tmp_path / FILE)

    actual = read_payments(tmp_path, 30)

    assert actual.ts_ms.tolist() == [10, 20]
    assert (actual.customer.tolist(), actual.terminal.tolist()) == ([1, 2], [4, 5])
    assert (actual.amount.tolist(), actual.fraud.tolist()) == ([1.0, 2.0], [1.0, 0.0])


def test_a_week_learns_from_days_whose_truths_had_all_arrived() -> None:
    history = make_payments(*((day + 0.5, day, 1, 1.0, 0) for day in range(40)))

    week = split_week(history, START + 30, 10)

    assert history.customer[week.train].tolist() == list(range(13, 23))
    assert history.customer[week.test].tolist() == list(range(30, 37))


def test_a_card_is_left_out_from_the_day_on_which_its_fraud_is_known() -> None:
    frauds = [(15.5, 1, 1, 1.0, 1), (16, 2, 1, 1.0, 1), (24, 3, 1, 1.0, 1), (24.1, 4, 1, 1.0, 1)]
    later = [(day, customer, 1, 1.0, 0) for day in (30.5, 31.5) for customer in (1, 2, 3, 4)]

    week = split_week(history := make_payments(*frauds, *later), START + 30, 10)

    judged = [(int(history.customer[row]), int(history.day[row]) - START) for row in week.test]
    assert judged == [(1, 30), (3, 30), (4, 30), (1, 31), (4, 31)]


def test_figures_are_those_of_the_judged_rows_and_their_mean_over_weeks() -> None:
    history = make_payments((0, 1, 1, 1.0, 0), (0.1, 2, 1, 1.0, 1), (0.2, 3, 1, 1.0, 0))

    right = evaluate_predictions(history, np.array([1, 2]), np.array([0.9, 0.1]))
    wrong = evaluate_predictions(history, np.array([1, 2]), np.array([0.1, 0.9]))

    assert right == FraudFigures(1.0, 1.0, 0.01)
    assert average_figures([right, wrong]) == FraudFigures(0.75, 0.5, 0.01)


def make_known(payments: Payments, features: FeatureSet) -> FraudData:
    return FraudData(payments, features, replay_blocks(payments, features, 0), 0)


def test_features_that_are_the_same_for_all_payments_are_not_learned_from(features: FeatureSet, seed: int) -> None:
    known = make_known(make_many_payments(200, seed), features)

    all_of = {feature.name for feature in select_features(known, np.arange(200), profiles=True).features}
    alone = {feature.name for feature in select_features(known, np.arange(200), profiles=False).features}

    assert {"order_amount", "hour", "seller_bad_share_7d", "amount_to_user_mean_30d"} <= all_of
    assert not {"order_currency", "device_bad_share", "order_lines_count"} & all_of
    assert alone == {"order_amount", "hour", "weekday"}


def test_narrowed_blocks_have_the_columns_that_are_wanted(features: FeatureSet, seed: int) -> None:
    known = make_known(make_many_payments(40, seed), features)
    wanted = features.select(["seller_fraud_bad", "order_amount", "user_recent_items"])

    actual = select_columns(known.blocks, features, wanted, np.array([30, 20]))

    assert {group: block.numbers.shape for group, block in actual.items()}["order"] == (2, 2)
    assert actual["order"].numbers[:, 0].tolist() == known.payments.amount[[30, 20]].astype(np.float32).tolist()
    np.testing.assert_array_equal(actual["user"].ids, known.blocks["user"].ids[[30, 20]])


def test_all_frauds_and_a_share_of_the_others_teach(seed: int) -> None:
    fraud = (np.random.default_rng(seed).random(20_000) < 0.1).astype(float)

    actual = sample_negatives(np.arange(20_000), fraud, 0.3)

    assert fraud[actual].sum() == fraud.sum()
    assert len(actual) - fraud.sum() == pytest.approx(0.3 * (1 - fraud).sum(), rel=0.15)


def test_trees_tell_frauds_that_amounts_tell(features: FeatureSet, seed: int) -> None:
    known = make_known(make_many_payments(1_500, seed), features)
    week = WeekSplit(train=np.arange(1_000), test=np.arange(1_100, 1_500))

    p = predict_with_trees(known, week)

    assert p.shape == (400,)
    assert evaluate_predictions(known.payments, week.test, p).auc > 0.95


def make_counting_method(calls: list[int], value: float) -> Callable[[FraudData, WeekSplit], np.ndarray]:
    def method(known: FraudData, week: WeekSplit) -> np.ndarray:
        calls.append(len(week.test))
        return np.full(len(week.test), value)

    return method


def test_a_week_that_is_measured_is_not_measured_again_by_the_same_code(
    features: FeatureSet, tmp_path: Path, seed: int
) -> None:
    known, calls = FraudData(make_many_payments(500, seed, 170), features, {}, 0), list[int]()
    dates = ["2018-07-25", "2018-08-01"]

    first = FraudBench(data=known, path=tmp_path / "rows", digest="one").measure_row(
        "some", make_counting_method(calls, 0.5), dates
    )
    second = FraudBench(data=known, path=tmp_path / "rows", digest="one").measure_row(
        "some", make_counting_method(calls, 0.1), dates
    )

    assert first == second
    assert len(calls) == 2
    FraudBench(data=known, path=tmp_path / "rows", digest="two").measure_row(
        "some", make_counting_method(calls, 0.5), dates
    )
    assert len(calls) == 4


def test_figures_beyond_what_can_be_true_are_told_as_leaks_and_low_ones_as_missed() -> None:
    good = msgspec.structs.replace(AIMS, auc=0.93)

    assert not list(find_leaks({"ours": good, "lightgbm": good}))
    assert not list(find_missed_aims({"ours": good}))
    assert len(list(find_leaks({"lightgbm": FraudFigures(0.851, 0.931, 0.3)}))) == 2
    assert len(list(find_missed_aims({"ours": FraudFigures(0.69, 0.8, 0.3)}))) == 3


def test_without_its_data_it_says_so_and_stops(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(tmp_path)]) == 1
    assert "SHOPSTREAM_DATA" in capsys.readouterr().err
