"""Watermarks over partitions, and the idle partitions that hold them back no longer."""

import random

import pytest

from contract.units import DAY_MS
from worker.joiner.watermarks import LONE_STEP_MS, IdlePartitions, RecordTime, Watermarks

FAR_MS = 4_000_000_000_000


def make_watermarks(*partitions: str) -> Watermarks[str]:
    watermarks = Watermarks[str]()
    watermarks.add_partitions(partitions)
    return watermarks


def observe(watermarks: Watermarks[str], partition: str, ms: int, *users: str, kafka_ms: int | None = None) -> None:
    """Records of these users, three by default, at this time."""
    for user in users or ("u", "v", "w"):
        watermarks.observe(partition, user, RecordTime(ms, kafka_ms))


def test_the_watermark_is_that_of_the_slowest_partition() -> None:
    watermarks = make_watermarks("clicks", "orders")
    observe(watermarks, "clicks", 50)
    observe(watermarks, "orders", 20)
    observe(watermarks, "orders", 10)

    assert watermarks.now_ms() == 20


def test_a_partition_without_an_event_yet_holds_the_watermark_back() -> None:
    watermarks = make_watermarks("clicks", "orders")
    observe(watermarks, "clicks", 50)

    assert watermarks.now_ms() is None


def test_a_partition_at_its_end_does_not_hold_the_watermark_back() -> None:
    watermarks = make_watermarks("clicks", "orders", "labels")
    observe(watermarks, "clicks", 50)
    observe(watermarks, "orders", 20)

    watermarks.set_at_end({"orders", "labels"})

    assert watermarks.now_ms() == 50


def test_with_every_partition_at_its_end_the_watermark_is_the_highest_time() -> None:
    watermarks = make_watermarks("clicks", "orders", "labels")
    observe(watermarks, "clicks", 50)
    observe(watermarks, "orders", 70)

    watermarks.set_at_end({"clicks", "orders", "labels"})

    assert watermarks.now_ms() == 70


@pytest.mark.parametrize("users", [(), ("v",), ("v", "w", "x", "y")])
@pytest.mark.parametrize("partitions", [("clicks",), ("clicks", "orders", "labels")])
def test_one_user_does_not_advance_the_watermark_of_partitions_that_are_read(
    users: tuple[str, ...], partitions: tuple[str, ...]
) -> None:
    watermarks = make_watermarks("clicks", "orders", "labels")
    for partition in ("clicks", "orders", "labels"):
        observe(watermarks, partition, 20, "u", *users)

    for partition in partitions:
        for ms in (FAR_MS, FAR_MS + 1):
            observe(watermarks, partition, ms, "stranger", kafka_ms=ms)

    assert watermarks.now_ms() == 20


def test_the_first_record_of_a_partition_does_not_advance_the_watermark_of_the_others() -> None:
    watermarks = make_watermarks("clicks", "orders")
    observe(watermarks, "orders", 20)
    watermarks.set_at_end({"orders"})

    observe(watermarks, "clicks", FAR_MS, "stranger")

    assert watermarks.now_ms() == 20


def test_one_user_without_a_kafka_time_never_advances_the_watermark() -> None:
    watermarks = make_watermarks("clicks")
    observe(watermarks, "clicks", 20)
    observe(watermarks, "clicks", FAR_MS, "stranger")

    watermarks.set_at_end({"clicks"})

    assert watermarks.now_ms() == 20


def test_when_all_is_read_one_user_advances_the_watermark_with_the_kafka_time() -> None:
    # given a shop at night, in which one user goes on
    watermarks = make_watermarks("clicks")
    observe(watermarks, "clicks", 20, kafka_ms=25)
    watermarks.set_at_end({"clicks"})

    observe(watermarks, "clicks", 20 + 30 * DAY_MS, "u", kafka_ms=25 + 30 * DAY_MS)

    assert watermarks.now_ms() == 20 + 30 * DAY_MS


def test_one_user_is_a_bounded_step_ahead_where_the_past_is_loaded() -> None:
    watermarks = make_watermarks("clicks")
    observe(watermarks, "clicks", 20, kafka_ms=FAR_MS)
    observe(watermarks, "clicks", FAR_MS, "stranger", kafka_ms=FAR_MS)

    watermarks.set_at_end({"clicks"})

    assert watermarks.now_ms() == 20 + LONE_STEP_MS


def test_the_watermark_of_a_partition_is_reached_by_three_users(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(50):
        watermarks, latest = make_watermarks("clicks"), dict[str, int]()
        for _ in range(rng.randrange(3, 60)):
            user, ms = f"u{rng.randrange(6)}", rng.randrange(1_000)
            latest[user] = max(ms, latest.get(user, 0))
            observe(watermarks, "clicks", ms, user)
        if len(latest) >= 3:
            assert watermarks.now_ms() == sorted(latest.values())[-3]


def test_without_partitions_or_events_there_is_no_watermark() -> None:
    empty, silent = make_watermarks(), make_watermarks("clicks")
    silent.set_at_end({"clicks"})

    assert empty.now_ms() is None
    assert silent.now_ms() is None


def test_the_watermark_never_goes_back() -> None:
    watermarks = make_watermarks("clicks", "orders")
    observe(watermarks, "clicks", 50)
    watermarks.set_at_end({"orders"})
    assert watermarks.now_ms() == 50

    observe(watermarks, "orders", 20)
    watermarks.set_at_end(())

    assert watermarks.now_ms() == 50


def test_partitions_with_more_to_read_hold_the_watermark_back_by_their_distance_to_the_latest_time() -> None:
    # given
    watermarks = make_watermarks("clicks", "orders", "labels", "rows")
    assert watermarks.measure_held_ms() == {}
    observe(watermarks, "clicks", 50)
    observe(watermarks, "orders", 20)
    observe(watermarks, "rows", 10)
    # when labels have no event, and all rows were read
    watermarks.set_at_end({"rows", "labels"})
    assert watermarks.now_ms() == 20
    watermarks.set_at_end({"rows"})
    # then
    assert watermarks.measure_held_ms() == {"clicks": 0, "orders": 30, "labels": 30}
    watermarks.set_at_end({"clicks", "orders", "labels", "rows"})
    assert watermarks.measure_held_ms() == {}


def test_a_partition_beyond_the_lead_over_the_slowest_is_ahead() -> None:
    watermarks = make_watermarks("clicks", "orders", "labels")
    observe(watermarks, "clicks", 50)
    observe(watermarks, "orders", 20)

    assert watermarks.partitions_ahead(30) == set()
    assert watermarks.partitions_ahead(29) == {"clicks"}


def test_one_record_ahead_does_not_stop_its_partition() -> None:
    watermarks = make_watermarks("clicks", "orders")
    observe(watermarks, "clicks", 20)
    observe(watermarks, "orders", 20)
    observe(watermarks, "clicks", FAR_MS, "stranger")

    assert watermarks.partitions_ahead(0) == set()


def test_no_partition_is_ahead_of_those_at_their_ends() -> None:
    watermarks = make_watermarks("clicks", "orders")
    observe(watermarks, "clicks", 50)
    observe(watermarks, "orders", 20)

    watermarks.set_at_end({"orders"})

    assert watermarks.partitions_ahead(0) == set()


def test_a_partition_is_idle_after_some_time_at_its_end() -> None:
    idle = IdlePartitions[str](after_s=2)

    assert idle.update(["clicks"], ["clicks"], [], 10.0) == set()
    assert idle.update(["clicks"], [], [], 11.9) == set()
    assert idle.update(["clicks"], [], [], 12.0) == {"clicks"}


def test_a_record_restarts_the_idle_timer() -> None:
    idle = IdlePartitions[str](after_s=2)
    idle.update(["clicks", "labels"], [], [], 10.0)

    assert idle.update(["clicks", "labels"], ["clicks"], [], 12.0) == {"labels"}
    assert idle.update(["clicks", "labels"], [], [], 14.0) == {"clicks", "labels"}


def test_a_partition_with_more_to_read_is_never_idle() -> None:
    idle = IdlePartitions[str](after_s=2)
    idle.update(["clicks"], [], [], 10.0)

    assert idle.update([], [], [], 13.0) == set()
    assert idle.update(["clicks"], [], [], 14.0) == set()


def test_with_a_zero_timeout_a_partition_at_its_end_is_idle() -> None:
    assert IdlePartitions[str](after_s=0).update(["clicks"], ["clicks"], [], 10.0) == {"clicks"}


def test_records_of_long_ago_do_not_restart_the_idle_timer() -> None:
    idle = IdlePartitions[str](after_s=2)
    idle.update(["labels"], [], [], 10.0)

    assert idle.update([], [], ["labels"], 11.0) == set()
    assert idle.update([], [], ["labels"], 12.0) == {"labels"}
    assert idle.update([], ["labels"], [], 13.0) == set()
