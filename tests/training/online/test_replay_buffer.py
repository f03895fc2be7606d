"""Who stays in the sample that is learned from again, and how often each row is drawn."""

import numpy as np
import pytest

from model.checkpoint import make_metadata
from tests.model.small import CLICK, FRAUD, make_network
from tests.training.examples import DAY_MS, START_MS, make_examples
from training.data.examples import Examples
from training.data.parquet import to_parquet
from training.data.split import assign_families
from training.online.replay_buffer import (
    FAMILY_SHARE_MIN,
    ReplayBuffer,
    decode_buffer,
    draw_buffer,
    encode_buffer,
    merge_examples,
)

METADATA = make_metadata(make_network(), parent=None, created_ms=10**12, evaluation={}, positions={})


def make_stream(rows: int, days: float, positives: float) -> Examples:
    """Clicks and orders over some days, fraud as rare as that."""
    examples = make_examples(rows, 7)
    examples.ts_ms[:] = START_MS + np.linspace(0, days * DAY_MS, rows).astype(np.int64)
    orders = examples.has_label(FRAUD)
    examples.labels["fraud"][orders] = np.random.default_rng(1).random(int(orders.sum())) < positives
    return examples


def example_ids(sample: ReplayBuffer) -> set[str]:
    return set(sample.examples.example_id.tolist())


def test_rare_labels_are_kept_and_drawn_as_often_as_they_happen() -> None:
    examples = make_stream(8_000, 10, 0.02)

    sample = draw_buffer(examples, 800, 7)

    rare = sample.examples.labels["fraud"] == 1
    assert 798 <= len(sample.examples) <= 800
    assert rare.sum() >= 15 > 800 * (examples.labels["fraud"] == 1).mean()
    orders = sample.examples.has_label(FRAUD)
    drawn = sample.weight[rare].sum() / sample.weight[orders].sum()
    assert drawn == pytest.approx(np.nanmean(examples.labels["fraud"]), abs=0.01)


def test_half_is_of_the_whole_past_and_half_recent() -> None:
    examples = make_stream(8_000, 20, 0.02)

    age_days = (examples.ts_ms.max() - draw_buffer(examples, 800, 7).examples.ts_ms) / DAY_MS

    assert 0.3 < (age_days < 2).mean() < 0.7
    assert (age_days > 10).mean() > 0.15


def test_who_stays_does_not_depend_on_the_portions_in_which_examples_came() -> None:
    examples = make_stream(6_000, 10, 0.02)
    whole = draw_buffer(examples, 600, 7)

    portion = draw_buffer(examples.take(np.arange(2_000)), 600, 7)
    for start in (2_000, 4_000):
        later = examples.take(np.arange(start, start + 2_000))
        portion = draw_buffer(merge_examples([portion.examples, later]), 600, 7)

    assert len(example_ids(whole) & example_ids(portion)) > 0.9 * len(example_ids(whole))
    rate = np.average(portion.examples.labels["click"][portion.examples.has_label(CLICK)])
    assert rate == pytest.approx(np.nanmean(examples.labels["click"]), abs=0.06)


def test_every_family_has_a_least_share_of_what_is_drawn() -> None:
    sample = draw_buffer(make_examples(1_000, 3).for_tasks((CLICK, FRAUD)), 400, 7)
    weight = np.where(sample.examples.has_label(FRAUD), 1e-6, sample.weight)

    chances = ReplayBuffer(sample.examples, weight).probabilities()

    of_fraud = chances[assign_families(sample.examples) == 1].sum()
    assert chances.sum() == pytest.approx(1)
    assert of_fraud == pytest.approx(FAMILY_SHARE_MIN / (1 + FAMILY_SHARE_MIN))


def test_a_sample_comes_back_with_its_weights() -> None:
    examples = make_stream(2_000, 10, 0.05)
    before = draw_buffer(examples, 300, 7)

    after = decode_buffer(encode_buffer(examples, 300, 7), METADATA)

    weights = [dict(zip(s.examples.example_id, s.weight, strict=True)) for s in (before, after)]
    assert weights[0] == weights[1]
    assert min(weights[0].values()) < 1


def test_a_sample_of_an_earlier_version_counts_each_row_alike() -> None:
    actual = decode_buffer(to_parquet(make_examples(50, 3)), METADATA)

    assert actual.weight.tolist() == [1] * len(actual.examples)


def test_all_examples_stay_where_there_is_room_and_none_where_there_is_none() -> None:
    examples = make_examples(50, 3)

    assert len(draw_buffer(examples, 100, 7).examples) == len(examples)
    assert set(draw_buffer(examples, 100, 7).weight.tolist()) == {1.0}
    assert encode_buffer(examples, 0, 7) == b""
