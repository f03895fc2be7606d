"""Where a read begins: at the positions that the topic still has, else at its beginning, with a warning."""

import pytest

from training.feedback.chunked_reader import plan_read
from transport.records import OffsetRange, TopicPartition


def test_a_position_beyond_the_topic_is_read_from_its_beginning_with_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # given a recreated topic, a kept one, and a partition that was added
    partitions = [TopicPartition("feedback", n) for n in range(4)]
    ranges = dict(zip(partitions, [(0, 3), (2, 9), (0, 5), (0, 4)], strict=True))
    positions = {"feedback/0": 8, "feedback/1": 1, "feedback/2": 4}
    # when
    starts, _ = plan_read({partition: OffsetRange(*ends) for partition, ends in ranges.items()}, positions)
    # then
    assert [starts[partition] for partition in partitions] == [0, 2, 4, 0]
    (message,) = caplog.messages
    assert "feedback[0]@8 (it has 0 to 3), feedback[1]@1 (it has 2 to 9)" in message
