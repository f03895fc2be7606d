"""The bench of learning on: its stream tells nothing early, and a small one runs to its figures."""

import json

import numpy as np
import pytest

from bench.quality.online_learning.arms import compare_arms, compute_block_auc, find_missed_aims
from bench.quality.online_learning.command import main
from bench.quality.online_learning.stream import RevisionStream, ShopSize, load_or_simulate
from contract.messages import read_example
from contract.settings import read_settings

SMALL = ShopSize(people=40, items=64, stable_days=1, drifting_days=1)


@pytest.fixture(scope="module")
def stream() -> RevisionStream:
    return load_or_simulate(SMALL, 5, *read_settings())


def test_a_revision_is_fed_when_its_labels_are_known_and_never_earlier(stream: RevisionStream) -> None:
    middle = SMALL.drift_start_ms

    rows = [read_example(value) for value in stream.select_between(0, middle)]

    assert rows
    assert all(known_ms <= middle for row in rows for known_ms in row.known_ms.values())
    assert len(rows) + len(stream.select_between(middle, 10**15)) == len(stream.revisions)


def test_old_examples_are_fed_to_nobody_and_come_from_before_the_drift(stream: RevisionStream) -> None:
    fed = {read_example(value).example_id for value in stream.revisions}

    assert len(stream.before_drift)
    assert not fed & set(stream.before_drift.example_id.tolist())
    assert (stream.before_drift.ts_ms < SMALL.drift_start_ms).all()
    assert (
        (stream.during_drift.ts_ms >= SMALL.drift_start_ms) & (stream.during_drift.ts_ms < SMALL.drift_end_ms)
    ).all()


def test_a_block_with_few_of_a_label_says_nothing() -> None:
    y, p = np.array([1.0] * 4 + [0.0] * 9), np.linspace(1, 0, 13)

    assert compute_block_auc(y, p)[1] == 0
    value, weight = compute_block_auc(np.append(y, 1.0), np.append(p, 0.9))
    assert value == 1.0
    assert weight == pytest.approx(5 * 9 / 14)


def test_what_is_missed_is_said_with_what_was_found() -> None:
    figures = {
        name: {"auc": {"click": value}, "old_auc": {"click": 0.7}, "cpu_s": 1.0}
        for name, value in {"frozen": 0.60, "5h": 0.61, "1h": 0.605, "30min": 0.62, "retrain": 0.61}.items()
    }
    figures["retrain"]["cpu_s"] = 20.0

    told = compare_arms(figures)

    assert told["online_minus_frozen_auc"] == {"5h": 0.01, "1h": 0.005, "30min": 0.02}
    assert (told["update_to_retrain_cpu"], told["forgetting"]) == (0.05, 0.0)
    assert list(find_missed_aims(told)) == ["Learning on more often should gain more. Found [0.01, 0.005, 0.02]."]


def test_a_small_shop_runs_to_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["--json", "--scale", "0.06", "--seeds", "1", "--arms", "5h,retrain", "--plan", "epochs=1"])

    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert status in (0, 1)
    assert set(printed["online_minus_frozen_auc"]) == {"5h"}
    assert {"update_to_retrain_cpu", "auc_to_retrain", "forgetting"} <= set(printed)
