"""Throughput: figures from samples of a process, and regressions against a baseline."""

import json
from pathlib import Path

import pytest

from bench.performance.baselines.contenders import WORKLOADS, LoadResults
from bench.performance.load.workload import LoadGenerator, Workload
from bench.performance.measure.drain import DrainResult, ProgressSample
from bench.performance.throughput import compare_to_bare, find_regressions
from bench.results.statistics import min_median_max


def make_drain_result(*speeds: float, cpu_us: float = 50.0) -> DrainResult:
    """A drain sampled once a second, with these speeds."""
    samples, events, at_s, cpu_s = [ProgressSample(0.0, 0, {"self": 0.0, "kafka": 0.0})], 0.0, 0.0, 0.0
    for speed in speeds:
        at_s, events, cpu_s = at_s + 1.0, events + speed, cpu_s + speed * cpu_us / 1e6
        samples.append(ProgressSample(at_s, int(events), {"self": cpu_s, "kafka": cpu_s / 2}))
    return DrainResult(samples)


def test_each_second_after_the_warmup_has_a_speed() -> None:
    # given a run whose first second has less than a seventh of the events
    run = make_drain_result(100, 900, 1_000, 1_100)
    # then
    assert run.speeds == pytest.approx([1_000, 1_100])
    assert run.seconds == pytest.approx(2)


def test_cpu_per_event_counts_events_after_the_warmup() -> None:
    run = make_drain_result(1_000, 1_000, 1_000, 1_000, cpu_us=80.0)

    assert run.cpu_us_per_event("self") == pytest.approx(80)
    assert run.cpu_us_per_event("kafka") == pytest.approx(40)


def test_a_drain_with_two_samples_has_one_speed() -> None:
    assert make_drain_result(500).speeds == pytest.approx([500])


def test_a_spread_is_minimum_median_and_maximum() -> None:
    assert min_median_max([3, 1, 2.04]) == (1, 2.0, 3)


def test_the_ratio_to_the_bare_loop_is_a_median_over_rounds() -> None:
    # given three rounds; other load slowed both in the second and ours alone in the third
    runs = LoadResults()
    runs.drains["ours"] = [make_drain_result(1_000, 1_000, cpu_us=us) for us in (60.0, 120.0, 300.0)]
    runs.drains["bare"] = [make_drain_result(1_000, 1_000, cpu_us=us) for us in (40.0, 80.0, 40.0)]
    # then
    assert compare_to_bare(runs) == pytest.approx(1.5)


@pytest.mark.parametrize(("ratio", "regressions"), [(1.64, 0), (1.66, 1)])
def test_a_ratio_a_tenth_above_the_baseline_is_a_regression(ratio: float, regressions: int, tmp_path: Path) -> None:
    baseline = tmp_path / "baseline.json"
    baseline.write_text(json.dumps({"orders": 1.5}))

    assert len(list(find_regressions({"orders": ratio, "clicks": 9.0}, baseline))) == regressions


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_a_workload_generates_exactly_its_kinds(workload: Workload) -> None:
    kinds = [record.kind for record in workload.generate(LoadGenerator(1, 0), 400)]

    assert set(kinds) == set(workload.kinds) - {"products"}
    assert kinds.count("clicks") == round(400 * workload.click_share)
    assert 150 < workload.measure_event_bytes() < 500
