"""The stopwatch: which part of a batch took how long, a record and a batch each."""

from worker.ops.profiler import Profiler


def parse_rows(watch: Profiler) -> dict[str, list[str]]:
    head, _, *lines = watch.format_table()
    assert head.startswith(f"{watch.records:,} records in {watch.batches:,} batches")
    return {line[:16].strip(): line[16:].split() for line in lines}


def test_a_part_is_told_by_the_record_and_by_the_batch() -> None:
    # given
    watch = Profiler()
    with watch("read"):
        pass
    watch("read").wall_ns, watch("read").cpu_ns = 6_000_000, 2_000_000
    watch.count_batch(100)
    watch.count_batch(200)
    # then
    assert parse_rows(watch) == {"read": ["20.00", "6.67", "13.33", "3.00", "1.00", "1"]}


def test_a_part_of_a_part_stands_below_it_whenever_it_came() -> None:
    # given
    watch = Profiler()
    for name in ("read", "publish", "read fold", "publish flush", "read profiles"):
        with watch(name):
            pass
    # then
    assert list(parse_rows(watch)) == ["read", "fold", "profiles", "publish", "flush"]


def test_a_poll_that_brought_nothing_is_no_batch() -> None:
    watch = Profiler()
    watch.count_batch(0)

    assert (watch.records, watch.batches) == (0, 0)
    assert parse_rows(watch) == {}


def test_time_that_passes_and_is_worked_is_counted() -> None:
    watch = Profiler()
    with watch("score"):
        sum(range(10_000))

    assert watch("score").wall_ns >= watch("score").cpu_ns > 0
