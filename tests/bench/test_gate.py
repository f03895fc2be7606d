"""`python -m bench gate` on a shop of a few days, by one or two updates of each sort."""

import json
from pathlib import Path

import numpy as np
import pytest

from bench.quality.gate.command import HarmfulTrial, main, summarize_trials
from bench.quality.gate.poisons import (
    POISONS,
    flip_share,
    leave_unchanged,
    match_partners,
    repeat_user,
    shuffle_labels,
    thin_or_inflate,
)
from tests.training.examples import make_rows
from training.online.update import UpdateResult


def test_every_kind_of_poison_changes_what_is_fed_or_how_it_is_learned() -> None:
    rows = make_rows(300, 1)
    for name, (spoil, _) in POISONS.items():
        changed = spoil(rows, np.random.default_rng(1))
        assert (changed == rows) == (spoil is leave_unchanged), name
    assert len(POISONS) >= 8


def test_flipped_labels_are_the_opposite_of_the_truth() -> None:
    rows = [row for row in make_rows(100, 1) if "click" in row.labels]

    wrong = flip_share(rows, np.random.default_rng(1), 1.0, ["click"])

    assert [row.labels["click"] for row in wrong] == [1 - float(row.labels["click"]) for row in rows]
    assert [row.labels.get("purchase") for row in wrong] == [row.labels.get("purchase") for row in rows]


def test_shuffled_labels_are_those_of_rows_of_the_same_family() -> None:
    rows = make_rows(200, 1)

    mixed = shuffle_labels(rows, np.random.default_rng(1))

    assert sorted(match_partners(rows, np.random.default_rng(1))) == list(range(200))
    assert [set(row.labels) for row in mixed] == [set(row.labels) for row in rows]


def test_one_users_examples_come_a_hundred_times_over_under_names_of_their_own() -> None:
    rows = make_rows(70, 1)

    more = repeat_user(rows, np.random.default_rng(1))

    assert len({row.example_id for row in more}) == len(more)
    assert len({row.user_id for row in more[70:]}) == 1


def test_labels_are_thinned_or_there_are_more_and_never_both() -> None:
    rows = make_rows(400, 1)
    clicks = sum(float(row.labels.get("click", 0)) for row in rows)

    for seed in range(6):
        told = sum(float(row.labels.get("click", 0)) for row in thin_or_inflate(rows, np.random.default_rng(seed)))
        assert told < 0.7 * clicks or told > 1.1 * clicks


def test_what_served_counts_as_missed_by_its_kind() -> None:
    tried = [HarmfulTrial("flipped labels", how, 1.0, "") for how in ("gate", "doubted", "dropped", "served")]

    actual = summarize_trials([*tried, HarmfulTrial("noisy weights", "gate", float("inf"), "")], [UpdateResult(1, {})])

    assert (actual["harmful"], actual["refused"], actual["healthy"], actual["passed"]) == (5, 4, 1, 0)
    assert actual["kinds"] == {"flipped labels": 3, "noisy weights": 1}
    assert actual["harm"] == {"flipped labels": 1.0, "noisy weights": "not finite"}


def test_a_small_shop_is_lived_through_and_the_last_line_is_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--json", "--scale", "0.01", "--rows", "300", "--days", "2", "--people", "120", "--items", "80"]

    status = main([*words, "--kept", str(tmp_path)])

    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert status in (0, 1)
    assert (printed["harmful"], printed["healthy"]) == (1, 1)
    assert printed["refused"] == sum(printed["kinds"].values())
