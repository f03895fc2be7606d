"""Which examples the replay buffer keeps and holds out, and how often each row is replayed."""

import numpy as np
import pytest

from contract.units import DAY_MS
from model.checkpoint import make_metadata
from tests.model.small import CLICK, FRAUD, make_network
from tests.training.examples import START_MS, make_examples
from training.data.examples import Examples, merge_examples
from training.data.parquet import to_parquet
from training.data.split import assign_families
from training.online.replay_buffer import (
    FAMILY_SHARE_MIN,
    HOLDOUT_MODULUS,
    ReplayBuffer,
    decode_buffer,
    draw_buffer,
    encode_buffer,
    split_buffer,
)

METADATA = make_metadata(make_network(), parent=None, created_ms=10**12, evaluation={}, positions={})


def make_stream(rows: int, days: float, positives: float) -> Examples:
    """Clicks and orders over some days; `positives`: the share of fraud among orders."""
    examples = make_examples(rows, 7)
    examples.ts_ms[:] = START_MS + np.linspace(0, days * DAY_MS, rows).astype(np.int64)
    orders = examples.has_label(FRAUD)
    examples.labels["fraud"][orders] = np.random.default_rng(1).random(int(orders.sum())) < positives
    return examples


def example_ids(buffer: ReplayBuffer) -> set[str]:
    return set(buffer.examples.example_id.tolist())


def buffer_all(examples: Examples) -> ReplayBuffer:
    return ReplayBuffer(examples, np.ones(len(examples)))


def test_rare_labels_are_kept_and_replayed_at_their_true_rate() -> None:
    examples = make_stream(8_000, 10, 0.02)

    buffer = draw_buffer(examples, 800, 7)

    rare = buffer.examples.labels["fraud"] == 1
    assert 798 <= len(buffer.examples) <= 800
    assert rare.sum() >= 15 > 800 * (examples.labels["fraud"] == 1).mean()
    orders = buffer.examples.has_label(FRAUD)
    replayed_share = buffer.weight[rare].sum() / buffer.weight[orders].sum()
    assert replayed_share == pytest.approx(np.nanmean(examples.labels["fraud"]), abs=0.01)


def test_half_of_the_buffer_is_recent() -> None:
    examples = make_stream(8_000, 20, 0.02)

    age_days = (examples.ts_ms.max() - draw_buffer(examples, 800, 7).examples.ts_ms) / DAY_MS

    assert 0.3 < (age_days < 2).mean() < 0.7
    assert (age_days > 10).mean() > 0.15


def test_the_choice_does_not_depend_on_how_examples_were_batched() -> None:
    examples = make_stream(6_000, 10, 0.02)
    whole = draw_buffer(examples, 600, 7)

    stepwise = draw_buffer(examples.take(np.arange(2_000)), 600, 7)
    for start in (2_000, 4_000):
        later = examples.take(np.arange(start, start + 2_000))
        stepwise = draw_buffer(merge_examples([stepwise.examples, later]), 600, 7)

    assert len(example_ids(whole) & example_ids(stepwise)) > 0.9 * len(example_ids(whole))
    rate = np.average(stepwise.examples.labels["click"][stepwise.examples.has_label(CLICK)])
    assert rate == pytest.approx(np.nanmean(examples.labels["click"]), abs=0.06)


def test_every_family_has_a_minimum_share_of_the_replay() -> None:
    buffer = draw_buffer(make_examples(1_000, 3).for_tasks((CLICK, FRAUD)), 400, 7)
    weight = np.where(buffer.examples.has_label(FRAUD), 1e-6, buffer.weight)

    probabilities = ReplayBuffer(buffer.examples, weight).probabilities()

    fraud_share = probabilities[assign_families(buffer.examples) == 1].sum()
    assert probabilities.sum() == pytest.approx(1)
    assert fraud_share == pytest.approx(FAMILY_SHARE_MIN / (1 + FAMILY_SHARE_MIN))


def test_an_encoded_buffer_keeps_its_weights() -> None:
    examples = make_stream(2_000, 10, 0.05)
    before = draw_buffer(examples, 300, 7)

    after = decode_buffer(encode_buffer(examples, 300, 7), METADATA)

    weights = [dict(zip(b.examples.example_id, b.weight, strict=True)) for b in (before, after)]
    assert weights[0] == weights[1]
    assert min(weights[0].values()) < 1


def test_a_buffer_without_weights_weighs_all_rows_alike() -> None:
    actual = decode_buffer(to_parquet(make_examples(50, 3)), METADATA)

    assert actual.weight.tolist() == [1] * len(actual.examples)


def test_a_large_buffer_keeps_all_examples_and_an_empty_one_none() -> None:
    examples = make_examples(50, 3)

    assert len(draw_buffer(examples, 100, 7).examples) == len(examples)
    assert set(draw_buffer(examples, 100, 7).weight.tolist()) == {1.0}
    assert encode_buffer(examples, 0, 7) == b""


def test_the_same_users_are_held_out_whatever_the_examples() -> None:
    few, many = make_examples(100, 1), make_examples(900, 2)
    for examples in (few, many):
        examples.user_id[:] = [f"u{n % 60}" for n in range(len(examples))]

    small, large = split_buffer(buffer_all(few)), split_buffer(buffer_all(many))

    assert set(small.holdout.user_id) <= set(large.holdout.user_id)
    assert not set(large.holdout.user_id) & set(large.replay.examples.user_id)
    assert len(large.holdout) + len(large.replay.examples) == len(many)
    assert 0.5 / HOLDOUT_MODULUS < len(large.holdout) / len(many) < 2 / HOLDOUT_MODULUS


def test_rows_without_a_user_are_split_by_their_own_ids() -> None:
    examples = make_examples(400, 1)
    examples.user_id[:] = ""

    replayed, holdout = split_buffer(buffer_all(examples))

    assert 40 < len(holdout) < 120
    assert len(replayed.examples) + len(holdout) == 400
