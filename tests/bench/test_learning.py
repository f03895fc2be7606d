"""The online learning bench: its stream publishes no label early, and a small run gives all figures."""

import json
from pathlib import Path

import numpy as np
import pytest

from bench.quality.online_learning import stream as stream_module
from bench.quality.online_learning.arms import compare_arms, compute_block_auc, find_missed_aims
from bench.quality.online_learning.command import main
from bench.quality.online_learning.stream import RevisionStream, ShopSize, load_or_simulate
from contract.messages import read_example
from contract.settings.reading import read_settings

SMALL = ShopSize(people=40, items=64, stable_days=1, drifting_days=1)


@pytest.fixture(scope="module")
def stream() -> RevisionStream:
    return load_or_simulate(SMALL, 5, *read_settings())


def test_a_revision_arrives_when_its_labels_are_known_and_not_earlier(stream: RevisionStream) -> None:
    middle = SMALL.drift_start_ms

    rows = [read_example(value) for value in stream.select_between(0, middle)]

    assert rows
    assert all(known_ms <= middle for row in rows for known_ms in row.known_ms.values())
    assert len(rows) + len(stream.select_between(middle, 10**15)) == len(stream.revisions)


def test_held_out_examples_are_never_trained_on_and_precede_the_drift(stream: RevisionStream) -> None:
    published = {read_example(value).example_id for value in stream.revisions}

    assert len(stream.before_drift)
    assert not published & set(stream.before_drift.example_id.tolist())
    assert (stream.before_drift.ts_ms < SMALL.drift_start_ms).all()
    assert (
        (stream.during_drift.ts_ms >= SMALL.drift_start_ms) & (stream.during_drift.ts_ms < SMALL.drift_end_ms)
    ).all()


def test_a_block_with_few_labels_of_a_kind_has_no_weight() -> None:
    y, p = np.array([1.0] * 4 + [0.0] * 9), np.linspace(1, 0, 13)

    assert compute_block_auc(y, p)[1] == 0
    value, weight = compute_block_auc(np.append(y, 1.0), np.append(p, 0.9))
    assert value == 1.0
    assert weight == pytest.approx(5 * 9 / 14)


def test_a_missed_aim_is_reported_with_its_value() -> None:
    figures = {
        name: {"auc": {"click": value}, "old_auc": {"click": 0.7}, "cpu_s": 1.0}
        for name, value in {"frozen": 0.60, "5h": 0.61, "1h": 0.605, "30min": 0.62, "retrain": 0.61}.items()
    }
    figures["retrain"]["cpu_s"] = 20.0

    comparison = compare_arms(figures)

    assert comparison["online_minus_frozen_auc"] == {"5h": 0.01, "1h": 0.005, "30min": 0.02}
    assert (comparison["update_to_retrain_cpu"], comparison["forgetting"]) == (0.05, 0.0)
    assert list(find_missed_aims(comparison)) == ["More frequent updates should gain more. Found [0.01, 0.005, 0.02]."]


def test_a_small_run_prints_all_figures(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["--json", "--scale", "0.06", "--seeds", "1", "--arms", "5h,retrain", "--plan", "epochs=1"])

    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert status in (0, 1)
    assert set(printed["online_minus_frozen_auc"]) == {"5h"}
    assert {"update_to_retrain_cpu", "auc_to_retrain", "forgetting"} <= set(printed)


def test_revisions_are_kept_while_their_code_stays_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    settings, features = read_settings()
    first = load_or_simulate(SMALL, 5, settings, features, tmp_path)
    monkeypatch.setattr(stream_module, "simulate_revisions", lambda *_: [])
    # when
    cached = load_or_simulate(SMALL, 5, settings, features, tmp_path)
    monkeypatch.setattr(stream_module, "CODE_PATHS", ("bench/results",))
    # then
    assert list(cached.revisions) == list(first.revisions)
    assert load_or_simulate(SMALL, 5, settings, features, tmp_path).revisions == []
