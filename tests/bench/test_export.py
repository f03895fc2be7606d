import numpy as np
import pytest

from bench.performance import export
from bench.performance.export import ExportFigures, find_largest, make_calls, measure_differences, measure_times
from tests.model.small import CLICK, PURCHASE, make_network


def test_all_variants_answer_the_same_candidates() -> None:
    us = measure_times(make_calls(make_network(tasks=(CLICK, PURCHASE)), 30), rounds=2)

    assert us.keys() == {"split graph", "plain graph", "split, torch"}
    assert min(us.values()) > 0


def test_a_nan_stays_the_largest_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    actual = iter((0.0, np.nan, 0.0, 0.0))  # items and recommend of two networks
    monkeypatch.setattr(export, "to_onnx", lambda *_: b"")
    monkeypatch.setattr(export, "measure_parity", lambda *_: next(actual))

    worst = measure_differences([make_network(tasks=(CLICK,))] * 2)

    assert worst["items"] == 0
    assert np.isnan(find_largest(worst))


def test_aims_are_missed_beyond_their_bounds_and_not_on_them() -> None:
    assert list(ExportFigures(1e-6, {"100": 1.6}, 1.0).missed_aims) == []
    assert list(ExportFigures(1.1e-6, {"100": 1.6, "500": 1.59}, 1.0).missed_aims) == [
        "Graphs should equal torch within 1e-06. Found a difference of 1.1e-06.",
        "The split graph should be 1.6 times as fast for 500 candidates. Found 1.59.",
    ]
    assert len(list(ExportFigures(float("nan"), {}, 1.0).missed_aims)) == 1
