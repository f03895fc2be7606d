"""The records of a batch's results."""

from msgspec.structs import replace

from contract.settings.servers import TopicSettings
from tests.contract.joining.builders import make_row
from worker.records.answers import CLICK, Answer
from worker.scoring.results import BatchResults

TOPICS = TopicSettings()


def list_partitions(counts: dict[str, int]) -> list[int]:
    """The partitions of the scored rows of an order and a search."""
    order = replace(make_row("order", "o", 0), partition=3)
    search = replace(make_row("search", "s", 0), topic=TOPICS.searches, partition=2)
    results = BatchResults([Answer(CLICK, row) for row in (order, search)])
    return [record.partition for record in results.to_records(TOPICS, counts)]


def test_a_row_goes_to_the_partition_of_its_event() -> None:
    assert list_partitions({TOPICS.scored: 4, TOPICS.orders: 4, TOPICS.searches: 4}) == [3, 2]


def test_where_topics_have_other_numbers_of_partitions_the_key_decides() -> None:
    assert list_partitions({TOPICS.scored: 4, TOPICS.orders: 8, TOPICS.searches: 4}) == [-1, 2]
    assert list_partitions({TOPICS.orders: 8}) == [-1, -1]
    assert list_partitions({}) == [-1, -1]
