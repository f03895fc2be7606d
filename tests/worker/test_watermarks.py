"""How far the streams' own time has come."""

from worker.watermarks import Watermarks


def of(*places: str) -> Watermarks[str]:
    made = Watermarks[str]()
    made.follow(places)
    return made


def test_the_watermark_is_that_of_the_slowest_partition() -> None:
    watermarks = of("clicks", "orders")
    watermarks.see("clicks", 50)
    watermarks.see("orders", 20)
    watermarks.see("orders", 10)

    assert watermarks.now_ms() == 20


def test_a_partition_that_was_not_heard_of_yet_holds_the_watermark_back() -> None:
    watermarks = of("clicks", "orders")
    watermarks.see("clicks", 50)

    assert watermarks.now_ms() is None


def test_a_partition_at_its_end_holds_nothing_back() -> None:
    watermarks = of("clicks", "orders", "labels")
    watermarks.see("clicks", 50)
    watermarks.see("orders", 20)

    watermarks.end({"orders", "labels"})

    assert watermarks.now_ms() == 50


def test_when_every_partition_is_at_its_end_the_watermark_is_the_latest_time() -> None:
    watermarks = of("clicks", "orders", "labels")
    watermarks.see("clicks", 50)
    watermarks.see("orders", 70)

    watermarks.end({"clicks", "orders", "labels"})

    assert watermarks.now_ms() == 70


def test_no_partition_or_none_with_an_event_gives_no_watermark() -> None:
    empty, silent = of(), of("clicks")
    silent.end({"clicks"})

    assert empty.now_ms() is None
    assert silent.now_ms() is None


def test_the_watermark_never_goes_back() -> None:
    watermarks = of("clicks", "orders")
    watermarks.see("clicks", 50)
    watermarks.end({"orders"})
    assert watermarks.now_ms() == 50

    watermarks.see("orders", 20)
    watermarks.end(())

    assert watermarks.now_ms() == 50


def test_a_partition_that_is_far_ahead_of_the_slowest_is_told() -> None:
    watermarks = of("clicks", "orders", "labels")
    watermarks.see("clicks", 50)
    watermarks.see("orders", 20)

    assert watermarks.ahead(30) == set()
    assert watermarks.ahead(29) == {"clicks"}


def test_nobody_is_ahead_of_partitions_that_are_at_their_end() -> None:
    watermarks = of("clicks", "orders")
    watermarks.see("clicks", 50)
    watermarks.see("orders", 20)

    watermarks.end({"orders"})

    assert watermarks.ahead(0) == set()
