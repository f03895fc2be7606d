"""Labels of late events in a history where silence means a negative, after a window."""

import numpy as np
import pytest

from contract.arrays import Mask
from contract.features.declaration import FeatureSet
from contract.messages import Example
from contract.tasks import Task
from contract.units import DAY_MS
from training.data.examples import Examples, from_rows
from training.replay.unsettled_labels import drop_unsettled_labels

FRAUD = Task(name="fraud", kind="binary", groups=("user",), graph="decide")
CLICK = Task(name="click", kind="binary", groups=("user",), graph="recommend")
DAYS, WINDOW = 60, 30
CHARGEBACK_DAYS = 7
START_MS = 1_700_000_000_000


def make_orders(seed: int, cleared_share: float, days: int = DAYS) -> Examples:
    """Forty orders a day, one in ten of them fraudulent, as a history that ends after `days` knows them."""
    rng, rows = np.random.default_rng(seed), list[Example]()
    for n in range(days * 40):
        day, is_fraud, is_cleared = n / 40, rng.random() < 0.1, rng.random() < cleared_share
        known_day = day + (CHARGEBACK_DAYS if is_fraud or is_cleared else WINDOW)
        if known_day <= days:
            rows.append(make_row(n, day, {"fraud": float(is_fraud)}, known_day))
    return from_rows(rows, FeatureSet([]), (FRAUD, CLICK))


def make_row(n: int, day: float, labels: dict[str, float | str], known_day: float) -> Example:
    ts_ms, known_ms = (START_MS + round(time * DAY_MS) for time in (day, known_day))
    return Example(
        example_id=f"e{n}",
        revision=0,
        event_id=f"e{n}",
        user_id=f"u{n % 50}",
        ts_ms=ts_ms,
        model_version="",
        features=FeatureSet([]).digest,
        groups={},
        labels=labels,
        known_ms=dict.fromkeys(labels, known_ms),
    )


def is_late(examples: Examples, days: float = DAYS) -> Mask:
    late: Mask = examples.ts_ms > START_MS + (days - WINDOW) * DAY_MS
    return late


def test_late_labels_are_left_out_where_silence_means_a_negative(seed: int) -> None:
    # given a shop that records chargebacks only
    examples = make_orders(seed, cleared_share=0.0)
    assert examples.labels["fraud"][is_late(examples)].min() == 1
    # when
    kept, dropped = drop_unsettled_labels(examples, (FRAUD, CLICK), WINDOW * DAY_MS)
    # then the base rate is that of the orders, in the latest part too
    assert dropped == {"fraud": int(is_late(examples).sum())}
    assert not is_late(kept).any()
    assert kept.labels["fraud"][-200:].mean() < 0.2
    assert len(kept) == len(examples) - dropped["fraud"]


@pytest.mark.parametrize("cleared_share", [1.0, 0.98])
def test_late_labels_stay_where_the_shop_says_how_orders_ended(seed: int, cleared_share: float) -> None:
    examples = make_orders(seed, cleared_share)
    assert drop_unsettled_labels(examples, (FRAUD, CLICK), WINDOW * DAY_MS) == (examples, {})


def test_a_history_shorter_than_the_window_is_kept_as_it_is(seed: int) -> None:
    examples = make_orders(seed, cleared_share=0.0, days=20)
    assert drop_unsettled_labels(examples, (FRAUD, CLICK), WINDOW * DAY_MS) == (examples, {})


def test_labels_of_other_tasks_on_a_late_event_stay(seed: int) -> None:
    orders = make_orders(seed, cleared_share=0.0).to_rows()
    both = make_row(-1, DAYS - 1, {"fraud": 1.0, "click": 1.0}, DAYS - 1)
    examples = from_rows([*orders, both], FeatureSet([]), (FRAUD, CLICK))
    kept, _ = drop_unsettled_labels(examples, (FRAUD, CLICK), WINDOW * DAY_MS)
    assert kept.example_id[-1] == "e-1"
    assert np.isnan(kept.labels["fraud"][-1])
    assert (kept.known_ms["fraud"][-1], kept.labels["click"][-1]) == (0, 1)
