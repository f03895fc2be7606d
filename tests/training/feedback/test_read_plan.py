"""Where a read begins: at the positions that the topic still has, else at its beginning, with a warning."""

import pytest

from training.feedback.read_plan import plan_read
from transport.positions import to_positions
from transport.records import OffsetRange, TopicPartition


def test_a_position_beyond_the_topic_is_read_from_its_beginning_with_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # given a recreated topic, a kept one, and a partition that was added
    partitions = [TopicPartition("feedback", n) for n in range(4)]
    ranges = dict(zip(partitions, [(0, 3), (2, 9), (0, 5), (0, 4)], strict=True))
    positions = {"feedback/0": 8, "feedback/1": 1, "feedback/2": 4}
    # when
    starts = plan_read({partition: OffsetRange(*ends) for partition, ends in ranges.items()}, positions).starts
    # then
    assert [starts[partition] for partition in partitions] == [0, 2, 4, 0]
    (message,) = caplog.messages
    assert "feedback[0]@8 (it has 0 to 3), feedback[1]@1 (it has 2 to 9)" in message


def test_a_longer_topic_with_another_id_is_read_from_its_beginning(caplog: pytest.LogCaptureFixture) -> None:
    # given positions in a topic, and a new one of that name which is longer
    partition = TopicPartition("feedback", 0)
    before = plan_read({partition: OffsetRange(0, 5)}, {}, topic_id="first").advance({}, {partition: 5})
    # when
    plan = plan_read({partition: OffsetRange(0, 9)}, before, topic_id="second")
    # then
    assert (plan.starts, plan.ends) == ({partition: 0}, {partition: 9})
    (message,) = caplog.messages
    assert "feedback[0]@5 (of a topic with another id)" in message
    assert plan.advance(before, {partition: 9}) == {"feedback/0@second": 9}


def test_positions_of_a_former_topic_and_without_an_id_give_way_to_those_of_the_topic() -> None:
    partition = TopicPartition("feedback", 0)
    positions = {"feedback/0": 7, "feedback/0@first": 8, **to_positions({partition: 2}, "second")}

    assert plan_read({partition: OffsetRange(0, 9)}, positions, topic_id="second").starts == {partition: 2}
    assert plan_read({partition: OffsetRange(0, 9)}, {"feedback/0": 7}, topic_id="second").starts == {partition: 7}


def test_a_partition_without_new_records_gets_the_id_of_its_topic() -> None:
    # given a position that an earlier version wrote, and a topic with nothing behind it
    full, empty = TopicPartition("feedback", 0), TopicPartition("feedback", 1)
    plan = plan_read({full: OffsetRange(0, 30), empty: OffsetRange(0, 0)}, {"feedback/0": 30}, topic_id="first")
    # when
    positions = plan.advance({"feedback/0": 30}, {})
    # then
    assert positions == {"feedback/0@first": 30, "feedback/1@first": 0}


def test_where_the_id_is_not_known_any_position_holds() -> None:
    partition = TopicPartition("feedback", 0)

    assert plan_read({partition: OffsetRange(0, 40)}, {"feedback/0@first": 30}).starts == {partition: 30}
