"""Latency: quantiles of answers' ages, and missed aims."""

import json
from pathlib import Path

import pytest

from bench.performance.latency import LatencyFigures, LatencyQuantiles, LatencyRow, summarize_latency
from bench.performance.measure.latency_probe import AnswerTime, read_answer_times


def make_quantiles(p99: float) -> LatencyQuantiles:
    return LatencyQuantiles(1.0, p99, p99, 100)


def test_latency_is_the_age_of_the_event_when_its_answer_is_observed() -> None:
    # given an answer to an event of each millisecond, n ms late for the nth, and one of an earlier event
    times = [AnswerTime(1_000.0 + 2 * n, 1_000.0 + n) for n in range(1_001)] + [AnswerTime(9_000.0, 10.0)]
    # then
    assert summarize_latency(times, 1_000.0) == LatencyQuantiles(500.0, 990.0, 999.0, 1_001)
    assert summarize_latency(times, 1_000.0, 1_101.0).count == 101


def test_a_period_without_answers_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="Found none"):
        summarize_latency([AnswerTime(1.0, 1.0)], 2.0)


def test_the_output_of_a_probe_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "output"
    path.write_text(json.dumps([[5.5, 2.0]]))

    assert [answer.latency_ms for answer in read_answer_times(path)] == [3.5]


@pytest.mark.parametrize(
    ("decision", "bare", "backlog", "missed"),
    [(35, 24, 2.0, 0), (35.1, 24, 2.0, 1), (35, 23, 2.0, 1), (35, 24, 2.1, 1)],
)
def test_each_aim_can_be_missed(decision: float, bare: float, backlog: float, missed: int) -> None:
    rows = {"500": LatencyRow(make_quantiles(decision), make_quantiles(50), make_quantiles(bare))}

    assert len(list(LatencyFigures(rows, backlog, make_quantiles(10), make_quantiles(20)).missed_aims)) == missed
