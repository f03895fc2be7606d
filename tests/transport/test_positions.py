"""Which offset of the positions holds for a partition."""

import pytest

from transport.positions import find_offset, to_positions
from transport.records import TopicPartition

PARTITION = TopicPartition("feedback", 3)
POSITIONS = {"feedback/3@first": 8, "feedback/30": 1}


@pytest.mark.parametrize(("topic_id", "expected"), [("first", 8), ("second", None), (None, 8)])
def test_an_offset_holds_for_the_topic_of_its_id(topic_id: str | None, expected: int | None) -> None:
    assert find_offset(POSITIONS, PARTITION, topic_id) == expected


def test_an_offset_without_an_id_holds_for_any_topic_of_that_name_unless_there_is_one_with_its_id() -> None:
    positions = {**POSITIONS, **to_positions({PARTITION: 5})}

    assert find_offset(positions, PARTITION, "first") == 8
    assert find_offset(positions, PARTITION, "second") == 5
