"""Watermarks over partitions, and the idle partitions that hold them back no longer."""

from worker.joiner.watermarks import IdlePartitions, Watermarks


def make_watermarks(*partitions: str) -> Watermarks[str]:
    watermarks = Watermarks[str]()
    watermarks.add_partitions(partitions)
    return watermarks


def test_the_watermark_is_that_of_the_slowest_partition() -> None:
    watermarks = make_watermarks("clicks", "orders")
    watermarks.observe("clicks", 50)
    watermarks.observe("orders", 20)
    watermarks.observe("orders", 10)

    assert watermarks.now_ms() == 20


def test_a_partition_without_an_event_yet_holds_the_watermark_back() -> None:
    watermarks = make_watermarks("clicks", "orders")
    watermarks.observe("clicks", 50)

    assert watermarks.now_ms() is None


def test_a_partition_at_its_end_does_not_hold_the_watermark_back() -> None:
    watermarks = make_watermarks("clicks", "orders", "labels")
    watermarks.observe("clicks", 50)
    watermarks.observe("orders", 20)

    watermarks.set_at_end({"orders", "labels"})

    assert watermarks.now_ms() == 50


def test_with_every_partition_at_its_end_the_watermark_is_the_highest_time() -> None:
    watermarks = make_watermarks("clicks", "orders", "labels")
    watermarks.observe("clicks", 50)
    watermarks.observe("orders", 70)

    watermarks.set_at_end({"clicks", "orders", "labels"})

    assert watermarks.now_ms() == 70


def test_without_partitions_or_events_there_is_no_watermark() -> None:
    empty, silent = make_watermarks(), make_watermarks("clicks")
    silent.set_at_end({"clicks"})

    assert empty.now_ms() is None
    assert silent.now_ms() is None


def test_the_watermark_never_goes_back() -> None:
    watermarks = make_watermarks("clicks", "orders")
    watermarks.observe("clicks", 50)
    watermarks.set_at_end({"orders"})
    assert watermarks.now_ms() == 50

    watermarks.observe("orders", 20)
    watermarks.set_at_end(())

    assert watermarks.now_ms() == 50


def test_a_partition_beyond_the_lead_over_the_slowest_is_ahead() -> None:
    watermarks = make_watermarks("clicks", "orders", "labels")
    watermarks.observe("clicks", 50)
    watermarks.observe("orders", 20)

    assert watermarks.partitions_ahead(30) == set()
    assert watermarks.partitions_ahead(29) == {"clicks"}


def test_no_partition_is_ahead_of_those_at_their_ends() -> None:
    watermarks = make_watermarks("clicks", "orders")
    watermarks.observe("clicks", 50)
    watermarks.observe("orders", 20)

    watermarks.set_at_end({"orders"})

    assert watermarks.partitions_ahead(0) == set()


def test_a_partition_is_idle_after_some_time_at_its_end() -> None:
    idle = IdlePartitions[str](after_s=2)

    assert idle.update(["clicks"], ["clicks"], 10.0) == set()
    assert idle.update(["clicks"], [], 11.9) == set()
    assert idle.update(["clicks"], [], 12.0) == {"clicks"}


def test_a_record_restarts_the_idle_timer() -> None:
    idle = IdlePartitions[str](after_s=2)
    idle.update(["clicks", "labels"], [], 10.0)

    assert idle.update(["clicks", "labels"], ["clicks"], 12.0) == {"labels"}
    assert idle.update(["clicks", "labels"], [], 14.0) == {"clicks", "labels"}


def test_a_partition_with_more_to_read_is_never_idle() -> None:
    idle = IdlePartitions[str](after_s=2)
    idle.update(["clicks"], [], 10.0)

    assert idle.update([], [], 13.0) == set()
    assert idle.update(["clicks"], [], 14.0) == set()


def test_with_a_zero_timeout_a_partition_at_its_end_is_idle() -> None:
    assert IdlePartitions[str](after_s=0).update(["clicks"], ["clicks"], 10.0) == {"clicks"}
