"""Records without a Kafka time are given that of the records before them."""

from transport.kafka_times import KafkaTimes
from transport.records import TopicPartition

ORDERS, CLICKS = TopicPartition("shop.orders", 0), TopicPartition("shop.clicks", 0)


def test_a_missing_time_is_the_highest_before_it_in_its_partition() -> None:
    times = KafkaTimes(clock_ms=lambda: 99)

    assert times.fill(ORDERS, [5, -1, 7, 6, -1]) == [5, 5, 7, 6, 7]
    assert times.fill(ORDERS, [-1, 3]) == [7, 3]
    assert times.fill(CLICKS, [-1]) == [99]


def test_the_highest_time_is_the_same_however_records_are_batched() -> None:
    together, one_by_one = KafkaTimes(clock_ms=lambda: 99), KafkaTimes(clock_ms=lambda: 99)
    kafka_ms = [-1, 5, 9, -1, 2, -1]

    assert together.fill(ORDERS, kafka_ms) == [one_by_one.fill(ORDERS, [ms])[0] for ms in kafka_ms]


def test_times_that_are_there_are_kept() -> None:
    times = KafkaTimes(clock_ms=lambda: 99)

    assert times.fill(ORDERS, [9, 0, 5]) == [9, 0, 5]
    assert times.fill(ORDERS, []) == []
