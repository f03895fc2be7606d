"""Partitions as text."""

from transport.records import TopicPartition


def test_a_partition_is_written_as_topic_slash_number() -> None:
    partition = TopicPartition("shop.orders", 3)

    assert str(partition) == f"{partition}" == "shop.orders/3"
    assert partition == ("shop.orders", 3)


def test_a_log_line_names_a_position_in_text_and_in_fields() -> None:
    partition = TopicPartition("shop.orders", 3)

    assert (partition.log_text(), partition.log_text(0)) == ("shop.orders[3]", "shop.orders[3]@0")
    assert partition.log_fields() == {"topic": "shop.orders", "partition": 3}
    assert partition.log_fields(0) == {"topic": "shop.orders", "partition": 3, "offset": 0}
