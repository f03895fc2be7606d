"""Partitions as text."""

from transport.records import TopicPartition


def test_a_partition_is_written_as_topic_slash_number() -> None:
    partition = TopicPartition("shop.orders", 3)

    assert str(partition) == f"{partition}" == "shop.orders/3"
    assert partition == ("shop.orders", 3)
