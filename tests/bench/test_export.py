import numpy as np
import pytest

from bench.performance import export
from bench.performance.export import ExportFigures, find_largest, make_calls, measure_differences, measure_times
from tests.model.small import CLICK, PURCHASE, make_network


def test_every_way_answers_the_same_candidates_and_takes_time() -> None:
    us = measure_times(make_calls(make_network(tasks=(CLICK, PURCHASE)), 30), rounds=2)

    assert us.keys() == {"split graph", "plain graph", "split, torch"}
    assert min(us.values()) > 0


def test_an_answer_that_is_no_number_stays_the_largest_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    actual = iter((0.0, np.nan, 0.0, 0.0))  # items and recommend of two networks
    monkeypatch.setattr(export, "to_onnx", lambda *_: b"")
    monkeypatch.setattr(export, "measure_parity", lambda *_: next(actual))

    worst = measure_differences([make_network(tasks=(CLICK,))] * 2)

    assert worst["items"] == 0
    assert np.isnan(find_largest(worst))


def test_aims_that_are_missed_are_told_and_those_on_the_bound_are_not() -> None:
    assert list(ExportFigures(1e-6, {"100": 1.6}, 1.0).missed_aims) == []
    assert list(ExportFigures(1.1e-6, {"100": 1.6, "500": 1.59}, 1.0).missed_aims) == [
        "Graphs should equal torch within 1e-06. Found a difference of 1.1e-06.",
        "The split graph should be 1.6 times as fast for 500 candidates. Found 1.59.",
    ]
    assert len(list(ExportFigures(float("nan"), {}, 1.0).missed_aims)) == 1
