"""The fraud bench: arrival of labels, training and test payments of a week, and kept results."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.quality.fraud import features as features_module
from bench.quality.fraud.command import AIMS, FraudBench, find_leaks, find_missed_aims, main
from bench.quality.fraud.dataset import DELAY_MS, FILE, Payments, iterate_arrivals, read_payments
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
from bench.results.cache import ResultCache
from contract.features.declaration import FeatureSet
from contract.features.reading import read_features
from contract.profiles.entity_updates import extract_updates
from contract.units import DAY_MS
from testkit.checkout import ROOT

START: int = parse_day("2018-04-01")


def make_payments(*payment: tuple[float, int, int, float, int]) -> Payments:
    """Payments of (days since the start, customer, terminal, amount, fraud)."""
    days, customer, terminal, amount, fraud = (np.array(column) for column in zip(*payment, strict=True))
    ts_ms = START * DAY_MS + np.round(days * DAY_MS).astype(np.int64)
    return Payments(ts_ms, customer, terminal, amount.astype(float), fraud.astype(float))


def make_many_payments(rows: int, seed: int, days: float = 40) -> Payments:
    """Random payments; those above 200 are frauds."""
    rng = np.random.default_rng(seed)
    amount = rng.uniform(1, 250, rows).round(2)
    columns = (np.sort(rng.uniform(0, days, rows)), rng.integers(0, 60, rows), rng.integers(0, 30, rows))
    return make_payments(*zip(*columns, amount, amount > 200, strict=True))


@pytest.fixture(scope="module")
def features() -> FeatureSet:
    return read_features(ROOT / "features.toml")


def read_column(features: FeatureSet, name: str, blocks: features_module.Blocks) -> list[float]:
    group = next(feature.group for feature in features.features if feature.name == name)
    column = [feature.name for feature in features.numbers(group)].index(name)
    return list(blocks[group].numbers[:, column].tolist())


def test_a_label_arrives_after_seven_days_and_before_a_payment_of_that_millisecond() -> None:
    history = make_payments((0, 1, 1, 5.0, 1), (6.9, 2, 2, 5.0, 0), (7, 3, 3, 5.0, 0), (8, 1, 1, 5.0, 0))

    chunks = list(iterate_arrivals(history, 2))

    arrivals = [arrival for chunk in chunks for arrival in chunk.arrivals]
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
    assert [chunk.order_indices.tolist() for chunk in chunks] == [[0, 1], [1], [0]]
    assert [chunk.payment_rows.tolist() for chunk in chunks] == [[0, 1], [2], [3]]


def test_a_label_names_all_entities_of_its_payment() -> None:
    history = make_payments((0, 4, 9, 12.34, 1))

    entities = {entity for entity, _ in extract_updates(history.to_order(0))}

    assert set(history.to_judgement(0).entities) == entities == {"user:4", "card:4", "item:payment", "seller:9"}


def test_no_feature_shows_a_fraud_before_its_label_arrives(features: FeatureSet) -> None:
    before = 7 - 1 / DAY_MS
    history = make_payments((0, 1, 5, 20.0, 1), (before, 2, 5, 10.0, 0), (7, 3, 5, 10.0, 0))

    blocks = replay_blocks(history, features, 1)

    assert read_column(features, "seller_fraud_bad", blocks) == [0, 1]
    assert read_column(features, "order_amount", blocks) == [10, 10]


def test_features_do_not_depend_on_the_chunk_size(
    features: FeatureSet, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = make_many_payments(120, seed)
    whole = replay_blocks(history, features, 20)

    monkeypatch.setattr(features_module, "CHUNK_ARRIVALS", 13)
    chunked = replay_blocks(history, features, 20)

    for group in DECISION_GROUPS:
        np.testing.assert_array_equal(chunked[group].numbers, whole[group].numbers)
        np.testing.assert_array_equal(chunked[group].ids, whole[group].ids)


def test_features_are_kept_until_the_data_change(
    features: FeatureSet, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    history, calls = make_many_payments(50, seed), list[int]()

    def replay_and_count(*arguments: object) -> features_module.Blocks:
        calls.append(1)
        return replay_blocks(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(features_module, "replay_blocks", replay_and_count)
    (tmp_path / FILE.parent).mkdir()
    (tmp_path / FILE).write_bytes(b"one")

    first = load_or_replay(history, features, 10, tmp_path, tmp_path / "kept")
    second = load_or_replay(history, features, 10, tmp_path, tmp_path / "kept")

    np.testing.assert_array_equal(first["order"].numbers, second["order"].numbers)
    assert len(calls) == 1
    (tmp_path / FILE).write_bytes(b"other")
    load_or_replay(history, features, 10, tmp_path, tmp_path / "kept")
    load_or_replay(history, features, 11, tmp_path, tmp_path / "kept")
    assert len(calls) == 3


def test_payments_before_a_time_are_read_in_order(tmp_path: Path) -> None:
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


def test_a_week_is_trained_on_days_whose_labels_had_all_arrived() -> None:
    history = make_payments(*((day + 0.5, day, 1, 1.0, 0) for day in range(40)))

    week = split_week(history, START + 30, 10)

    assert history.customer[week.train].tolist() == list(range(13, 23))
    assert history.customer[week.test].tolist() == list(range(30, 37))


def test_a_card_is_excluded_from_the_day_its_fraud_is_known() -> None:
    frauds = [(15.5, 1, 1, 1.0, 1), (16, 2, 1, 1.0, 1), (24, 3, 1, 1.0, 1), (24.1, 4, 1, 1.0, 1)]
    later = [(day, customer, 1, 1.0, 0) for day in (30.5, 31.5) for customer in (1, 2, 3, 4)]

    week = split_week(history := make_payments(*frauds, *later), START + 30, 10)

    tested = [(int(history.customer[row]), int(history.day[row]) - START) for row in week.test]
    assert tested == [(1, 30), (3, 30), (4, 30), (1, 31), (4, 31)]


def test_figures_are_of_the_test_rows_and_averaged_over_weeks() -> None:
    history = make_payments((0, 1, 1, 1.0, 0), (0.1, 2, 1, 1.0, 1), (0.2, 3, 1, 1.0, 0))

    right = evaluate_predictions(history, np.array([1, 2]), np.array([0.9, 0.1]))
    wrong = evaluate_predictions(history, np.array([1, 2]), np.array([0.1, 0.9]))

    assert right == FraudFigures(1.0, 1.0, 0.01)
    assert average_figures([right, wrong]) == FraudFigures(0.75, 0.5, 0.01)


def make_data(payments: Payments, features: FeatureSet) -> FraudData:
    return FraudData(payments, features, replay_blocks(payments, features, 0), 0)


def test_constant_features_are_not_selected(features: FeatureSet, seed: int) -> None:
    data = make_data(make_many_payments(200, seed), features)

    all_names = {feature.name for feature in select_features(data, np.arange(200), profiles=True).features}
    alone = {feature.name for feature in select_features(data, np.arange(200), profiles=False).features}

    assert {"order_amount", "hour", "seller_bad_share_7d", "amount_to_user_mean_30d"} <= all_names
    assert not {"order_currency", "device_bad_share", "order_lines_count"} & all_names
    assert alone == {"order_amount", "hour", "weekday"}


def test_selected_blocks_have_the_wanted_columns(features: FeatureSet, seed: int) -> None:
    data = make_data(make_many_payments(40, seed), features)
    wanted = features.select(["seller_fraud_bad", "order_amount", "user_recent_items"])

    actual = select_columns(data.blocks, features, wanted, np.array([30, 20]))

    assert {group: block.numbers.shape for group, block in actual.items()}["order"] == (2, 2)
    assert actual["order"].numbers[:, 0].tolist() == data.payments.amount[[30, 20]].astype(np.float32).tolist()
    np.testing.assert_array_equal(actual["user"].ids, data.blocks["user"].ids[[30, 20]])


def test_training_rows_are_all_frauds_and_a_share_of_the_others(seed: int) -> None:
    fraud = (np.random.default_rng(seed).random(20_000) < 0.1).astype(float)

    actual = sample_negatives(np.arange(20_000), fraud, 0.3)

    assert fraud[actual].sum() == fraud.sum()
    assert len(actual) - fraud.sum() == pytest.approx(0.3 * (1 - fraud).sum(), rel=0.15)


def test_trees_tell_frauds_that_amounts_tell(features: FeatureSet, seed: int) -> None:
    data = make_data(make_many_payments(1_500, seed), features)
    week = WeekSplit(train=np.arange(1_000), test=np.arange(1_100, 1_500))

    p = predict_with_trees(data, week)

    assert p.shape == (400,)
    assert evaluate_predictions(data.payments, week.test, p).auc > 0.95


def make_counting_method(calls: list[int], value: float) -> Callable[[FraudData, WeekSplit], np.ndarray]:
    def method(data: FraudData, week: WeekSplit) -> np.ndarray:
        calls.append(len(week.test))
        return np.full(len(week.test), value)

    return method


def test_a_week_is_measured_again_only_after_the_code_changed(features: FeatureSet, tmp_path: Path, seed: int) -> None:
    # given
    data, calls = FraudData(make_many_payments(500, seed, 170), features, {}, 0), list[int]()
    dates = ["2018-07-25", "2018-08-01"]

    def measure(digest: str, value: float) -> FraudFigures:
        cache = ResultCache(path=tmp_path / "rows", digest=digest, result_type=FraudFigures)
        return FraudBench(data=data, cache=cache).measure_row("name", make_counting_method(calls, value), dates)

    # when
    first, second = measure("one", 0.5), measure("one", 0.1)

    # then
    assert first == second
    assert len(calls) == 2
    measure("two", 0.5)
    assert len(calls) == 4


def test_too_good_figures_are_leaks_and_low_ones_are_missed_aims() -> None:
    good = msgspec.structs.replace(AIMS, auc=0.93)

    assert not list(find_leaks({"ours": good, "lightgbm": good}))
    assert not list(find_missed_aims({"ours": good}))
    assert len(list(find_leaks({"lightgbm": FraudFigures(0.851, 0.931, 0.3)}))) == 2
    assert len(list(find_missed_aims({"ours": FraudFigures(0.69, 0.8, 0.3)}))) == 3


def test_missing_data_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(tmp_path)]) == 1
    assert "SHOPSTREAM_DATA" in capsys.readouterr().err
