"""Orphans are counted once: what can be read again is not final, and what is final is told to the next life."""

from contract.joining.output import Origin, OrphanLabel
from transport.records import TopicPartition
from worker.joiner.orphan_counter import OrphanCounter

LABELS, OTHERS = TopicPartition("shop.labels", 0), TopicPartition("shop.labels", 1)


def make_orphan(offset: int, task: str = "fraud", partition: TopicPartition = LABELS) -> OrphanLabel:
    return OrphanLabel(task, "o", Origin(*partition, offset))


def make_tally(*final: dict[str, int], limit: int = 100) -> OrphanCounter:
    return OrphanCounter(final=final, limit=limit)


def test_an_orphan_that_may_be_read_again_is_counted_and_not_handed_on() -> None:
    life = make_tally()
    life.add([make_orphan(5)])

    assert life.total() == {"fraud": 1}
    assert make_tally(life.finalize({LABELS: 5})).total() == {}


def test_an_orphan_that_is_passed_is_handed_on_and_not_counted_again() -> None:
    life = make_tally()
    life.add([make_orphan(5), make_orphan(7), make_orphan(3, "brushing")])

    second = make_tally(life.finalize({LABELS: 6}))
    assert second.total() == {"fraud": 1, "brushing": 1}

    second.add([make_orphan(7)])  # it was read again
    assert make_tally(second.finalize({LABELS: 8})).total() == {"fraud": 2, "brushing": 1}


def test_each_partition_is_passed_by_itself() -> None:
    life = make_tally()
    life.add([make_orphan(5), make_orphan(5, partition=OTHERS)])

    assert make_tally(life.finalize({LABELS: 6})).total() == {"fraud": 1}
    assert make_tally(life.finalize({OTHERS: 6})).total() == {"fraud": 2}


def test_of_several_notes_the_latest_counts() -> None:
    assert make_tally({"fraud": 3}, {}, {"fraud": 3, "brushing": 1}, {"fraud": 2}).total() == {
        "fraud": 3,
        "brushing": 1,
    }


def test_of_too_many_the_oldest_are_final_before_they_are_passed() -> None:
    life = make_tally(limit=2)
    life.add([make_orphan(3), make_orphan(1), make_orphan(2)])

    assert life.total() == {"fraud": 3}
    assert make_tally(life.finalize({LABELS: 0})).total() == {"fraud": 1}


def test_an_orphan_of_nowhere_is_final_at_once() -> None:
    life = make_tally()
    life.add([OrphanLabel("fraud", "o", None)])

    assert make_tally(life.finalize({})).total() == {"fraud": 1}
