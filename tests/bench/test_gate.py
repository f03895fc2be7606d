"""`python -m bench gate` on a shop of a few days, with one or two updates of each kind."""

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


def test_every_poison_changes_the_rows_or_the_training() -> None:
    rows = make_rows(300, 1)
    for name, (poison, _) in POISONS.items():
        changed = poison(rows, np.random.default_rng(1))
        assert (changed == rows) == (poison is leave_unchanged), name
    assert len(POISONS) >= 8


def test_flipped_labels_are_inverted() -> None:
    rows = [row for row in make_rows(100, 1) if "click" in row.labels]

    flipped = flip_share(rows, np.random.default_rng(1), 1.0, ["click"])

    assert [row.labels["click"] for row in flipped] == [1 - float(row.labels["click"]) for row in rows]
    assert [row.labels.get("purchase") for row in flipped] == [row.labels.get("purchase") for row in rows]


def test_shuffled_labels_come_from_rows_of_the_same_family() -> None:
    rows = make_rows(200, 1)

    shuffled = shuffle_labels(rows, np.random.default_rng(1))

    assert sorted(match_partners(rows, np.random.default_rng(1))) == list(range(200))
    assert [set(row.labels) for row in shuffled] == [set(row.labels) for row in rows]


def test_one_users_examples_are_repeated_under_new_ids() -> None:
    rows = make_rows(70, 1)

    repeated = repeat_user(rows, np.random.default_rng(1))

    assert len({row.example_id for row in repeated}) == len(repeated)
    assert len({row.user_id for row in repeated[70:]}) == 1


def test_positive_labels_are_thinned_or_inflated() -> None:
    rows = make_rows(400, 1)
    clicks = sum(float(row.labels.get("click", 0)) for row in rows)

    for seed in range(6):
        changed = sum(float(row.labels.get("click", 0)) for row in thin_or_inflate(rows, np.random.default_rng(seed)))
        assert changed < 0.7 * clicks or changed > 1.1 * clicks


def test_a_harmful_update_that_serves_is_not_counted_as_refused() -> None:
    trials = [HarmfulTrial("flipped labels", outcome, 1.0, "") for outcome in ("gate", "doubted", "dropped", "served")]

    actual = summarize_trials([*trials, HarmfulTrial("noisy weights", "gate", float("inf"), "")], [UpdateResult(1, {})])

    assert (actual["harmful"], actual["refused"], actual["healthy"], actual["passed"]) == (5, 4, 1, 0)
    assert actual["kinds"] == {"flipped labels": 3, "noisy weights": 1}
    assert actual["harm"] == {"flipped labels": 1.0, "noisy weights": "not finite"}


def test_a_small_run_prints_json_in_its_last_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--json", "--scale", "0.01", "--rows", "300", "--days", "2", "--people", "120", "--items", "80"]

    status = main([*words, "--kept", str(tmp_path)])

    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert status in (0, 1)
    assert (printed["harmful"], printed["healthy"]) == (1, 1)
    assert printed["refused"] == sum(printed["kinds"].values())
