"""Latency: how late answers were, and what is missed."""

import json
from pathlib import Path

import pytest

from bench.performance.latency import LatencyFigures, LatencyQuantiles, LatencyRow, summarize_latency
from bench.performance.measure.latency_probe import AnswerTime, read_answer_times


def make_spread(p99: float) -> LatencyQuantiles:
    return LatencyQuantiles(1.0, p99, p99, 100)


def test_answers_are_as_late_as_their_events_are_old_when_they_are_seen() -> None:
    # given answers to events of every millisecond, each as late as its number, and one from before
    seen = [AnswerTime(1_000.0 + 2 * n, 1_000.0 + n) for n in range(1_001)] + [AnswerTime(9_000.0, 10.0)]
    # then
    assert summarize_latency(seen, 1_000.0) == LatencyQuantiles(500.0, 990.0, 999.0, 1_001)
    assert summarize_latency(seen, 1_000.0, 1_101.0).count == 101


def test_that_nothing_was_answered_is_no_figure() -> None:
    with pytest.raises(RuntimeError, match="Found none"):
        summarize_latency([AnswerTime(1.0, 1.0)], 2.0)


def test_what_a_watcher_has_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "found"
    path.write_text(json.dumps([[5.5, 2.0]]))

    assert [one.latency_ms for one in read_answer_times(path)] == [3.5]


@pytest.mark.parametrize(
    ("decision", "bare", "backlog", "missed"),
    [(35, 24, 2.0, 0), (35.1, 24, 2.0, 1), (35, 23, 2.0, 1), (35, 24, 2.1, 1)],
)
def test_each_aim_is_looked_at(decision: float, bare: float, backlog: float, missed: int) -> None:
    rows = {"500": LatencyRow(make_spread(decision), make_spread(50), make_spread(bare))}

    assert len(list(LatencyFigures(rows, backlog, make_spread(10), make_spread(20)).missed_aims)) == missed
