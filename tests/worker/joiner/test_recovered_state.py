"""Orphans are counted once: final counts are handed to the next run, others are read again by it."""

from contract.joining.output import Origin, OrphanLabel
from transport.records import TopicPartition
from worker.joiner.recovered_state import OrphanCounter

LABELS, OTHERS = TopicPartition("shop.labels", 0), TopicPartition("shop.labels", 1)


def make_orphan(offset: int, task: str = "fraud", partition: TopicPartition = LABELS) -> OrphanLabel:
    return OrphanLabel(task, "o", Origin(*partition, offset))


def make_counter(*final: dict[str, int], limit: int = 100) -> OrphanCounter:
    return OrphanCounter(final=final, limit=limit)


def test_an_orphan_that_may_be_reread_is_counted_but_not_final() -> None:
    counter = make_counter()
    counter.add([make_orphan(5)])

    assert counter.total() == {"fraud": 1}
    assert make_counter(counter.finalize({LABELS: 5})).total() == {}


def test_an_orphan_before_the_position_is_final_and_counted_once() -> None:
    counter = make_counter()
    counter.add([make_orphan(5), make_orphan(7), make_orphan(3, "brushing")])

    second = make_counter(counter.finalize({LABELS: 6}))
    assert second.total() == {"fraud": 1, "brushing": 1}

    second.add([make_orphan(7)])  # its record is read again
    assert make_counter(second.finalize({LABELS: 8})).total() == {"fraud": 2, "brushing": 1}


def test_orphans_become_final_per_partition() -> None:
    counter = make_counter()
    counter.add([make_orphan(5), make_orphan(5, partition=OTHERS)])

    assert make_counter(counter.finalize({LABELS: 6})).total() == {"fraud": 1}
    assert make_counter(counter.finalize({OTHERS: 6})).total() == {"fraud": 2}


def test_the_largest_committed_counts_are_continued() -> None:
    assert make_counter({"fraud": 3}, {}, {"fraud": 3, "brushing": 1}, {"fraud": 2}).total() == {
        "fraud": 3,
        "brushing": 1,
    }


def test_beyond_the_limit_the_oldest_orphan_becomes_final() -> None:
    counter = make_counter(limit=2)
    counter.add([make_orphan(3), make_orphan(1), make_orphan(2)])

    assert counter.total() == {"fraud": 3}
    assert make_counter(counter.finalize({LABELS: 0})).total() == {"fraud": 1}


def test_an_orphan_without_an_origin_is_final_at_once() -> None:
    counter = make_counter()
    counter.add([OrphanLabel("fraud", "o", None)])

    assert make_counter(counter.finalize({})).total() == {"fraud": 1}
