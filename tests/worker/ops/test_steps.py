"""The step file, the timers of steps and parts, and the printed profile."""

from pathlib import Path

import pytest

from worker.ops import metrics
from worker.ops.steps import PROFILER, STEP_CODES, STEPS, Profiler, Step, StepMarker


def parse_rows(profiler: Profiler) -> dict[str, list[str]]:
    head, _, *lines = profiler.format_table()
    assert head.startswith(f"{profiler.records:,} records in {profiler.batches:,} batches")
    return {line[:16].strip(): line[16:].split() for line in lines}


def read_observations(step: str) -> float:
    return metrics.REGISTRY.get_sample_value("shopstream_step_seconds_count", {"step": step}) or 0.0


def test_every_step_is_written_to_the_step_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    step_file = tmp_path / "step"
    monkeypatch.setenv("SHOPSTREAM_STEP_FILE", str(step_file))
    mark_step = StepMarker()
    for step in STEPS:
        # when
        mark_step(step)
        # then
        assert step_file.read_bytes() == bytes([STEP_CODES[step]])
        assert mark_step.current == step


def test_without_a_step_file_the_process_itself_knows_its_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHOPSTREAM_STEP_FILE", raising=False)
    mark_step = StepMarker()

    mark_step("merge")

    assert mark_step.current == "merge"


def test_an_unknown_step_is_refused() -> None:
    with pytest.raises(KeyError):
        StepMarker()("sleep")


def test_timing_a_step_marks_it_and_feeds_profile_and_metric() -> None:
    # given
    mark_step, calls, observed = StepMarker(), PROFILER(Step.CACHE).calls, read_observations("cache")
    # when
    with mark_step.time(Step.CACHE):
        assert mark_step.current == "cache"
    # then
    assert PROFILER("cache").calls == calls + 1
    assert read_observations("cache") == observed + 1


def test_a_part_of_a_step_is_profiled_and_no_metric() -> None:
    profiler = Profiler()

    with profiler("read fold"):
        pass

    assert profiler("read fold").calls == 1
    assert read_observations("read fold") == 0


def test_a_step_that_begins_again_inside_itself_counts_both_runs() -> None:
    profiler = Profiler()

    with profiler("wait"), profiler("wait"):
        sum(range(1_000))

    assert profiler("wait").calls == 2
    assert profiler("wait").wall_ns > 0


def test_the_profile_has_times_per_record_and_per_batch() -> None:
    # given
    profiler = Profiler()
    with profiler("decode"):
        pass
    profiler("decode").wall_ns, profiler("decode").cpu_ns = 6_000_000, 2_000_000
    profiler.count_batch(100)
    profiler.count_batch(200)
    # then
    assert parse_rows(profiler) == {"decode": ["20.00", "6.67", "13.33", "3.00", "1.00", "1"]}


def test_parts_are_listed_below_their_step_in_order_of_first_run() -> None:
    # given
    profiler = Profiler()
    for name in ("read", "publish", "read fold", "publish flush", "read profiles"):
        with profiler(name):
            pass
    # then
    assert list(parse_rows(profiler)) == ["read", "fold", "profiles", "publish", "flush"]


def test_an_empty_poll_is_no_batch() -> None:
    profiler = Profiler()
    profiler.count_batch(0)

    assert (profiler.records, profiler.batches) == (0, 0)
    assert parse_rows(profiler) == {}


def test_wall_and_cpu_time_are_measured() -> None:
    profiler = Profiler()
    with profiler("score clicks"):
        sum(range(10_000))

    assert profiler("score clicks").wall_ns >= profiler("score clicks").cpu_ns > 0
