"""Throughput: figures from looks at a process, and what is worse than before."""

import json
from pathlib import Path

import pytest

from bench.performance.baselines.contenders import WORKLOADS, LoadResults
from bench.performance.load.workload import LoadGenerator, Workload
from bench.performance.measure.drain import DrainResult, ProgressSample
from bench.performance.throughput import compare_to_bare, find_regressions
from bench.results.statistics import min_median_max


def make_drained(*speeds: float, cpu_us: float = 50.0) -> DrainResult:
    """A run that was looked at once a second, at these speeds; slow and dear until it is warm."""
    looks, events, at_s, cpu_s = [ProgressSample(0.0, 0, {"self": 0.0, "kafka": 0.0})], 0.0, 0.0, 0.0
    for speed in speeds:
        at_s, events, cpu_s = at_s + 1.0, events + speed, cpu_s + speed * cpu_us / 1e6
        looks.append(ProgressSample(at_s, int(events), {"self": cpu_s, "kafka": cpu_s / 2}))
    return DrainResult(looks)


def test_a_speed_is_told_for_each_second_after_it_is_warm() -> None:
    # given a run whose first second has less than a seventh of the events
    run = make_drained(100, 900, 1_000, 1_100)
    # then
    assert run.speeds == pytest.approx([1_000, 1_100])
    assert run.seconds == pytest.approx(2)


def test_cpu_is_that_of_the_events_after_it_is_warm() -> None:
    run = make_drained(1_000, 1_000, 1_000, 1_000, cpu_us=80.0)

    assert run.cpu_us_per_event("self") == pytest.approx(80)
    assert run.cpu_us_per_event("kafka") == pytest.approx(40)


def test_a_run_that_was_seen_twice_has_one_speed() -> None:
    assert make_drained(500).speeds == pytest.approx([500])


def test_a_spread_is_the_least_the_middle_and_the_most() -> None:
    assert min_median_max([3, 1, 2.04]) == (1, 2.0, 3)


def test_the_ratio_to_the_bare_loop_is_taken_round_by_round() -> None:
    # given three rounds, in one of which the machine was busy for both and in one for ours alone
    runs = LoadResults()
    runs.drains["ours"] = [make_drained(1_000, 1_000, cpu_us=us) for us in (60.0, 120.0, 300.0)]
    runs.drains["bare"] = [make_drained(1_000, 1_000, cpu_us=us) for us in (40.0, 80.0, 40.0)]
    # then
    assert compare_to_bare(runs) == pytest.approx(1.5)


@pytest.mark.parametrize(("ratio", "found"), [(1.64, 0), (1.66, 1)])
def test_more_than_a_tenth_worse_than_what_is_kept_is_told(ratio: float, found: int, tmp_path: Path) -> None:
    kept = tmp_path / "baseline.json"
    kept.write_text(json.dumps({"orders": 1.5}))

    assert len(list(find_regressions({"orders": ratio, "clicks": 9.0}, kept))) == found


@pytest.mark.parametrize("lane", WORKLOADS, ids=lambda lane: lane.name)
def test_a_load_has_the_kinds_that_it_says(lane: Workload) -> None:
    kinds = [one.kind for one in lane.generate(LoadGenerator(1, 0), 400)]

    assert set(kinds) == set(lane.kinds) - {"products"}
    assert kinds.count("clicks") == round(400 * lane.click_share)
    assert 150 < lane.measure_event_bytes() < 500
