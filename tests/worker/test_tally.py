"""Orphans are counted once: what can be read again is not final, and what is final is told to the next life."""

from contract.joining.output import Origin, Orphan
from worker.intake import Place
from worker.tally import Tally

LABELS, OTHERS = Place("shop.labels", 0), Place("shop.labels", 1)


def orphan(offset: int, task: str = "fraud", place: Place = LABELS) -> Orphan:
    return Orphan(task, "o", Origin(*place, offset))


def tally(*final: dict[str, int], limit: int = 100) -> Tally:
    return Tally(final=final, limit=limit)


def test_an_orphan_that_may_be_read_again_is_counted_and_not_handed_on() -> None:
    life = tally()
    life.add([orphan(5)])

    assert life.total() == {"fraud": 1}
    assert tally(life.final({LABELS: 5})).total() == {}


def test_an_orphan_that_is_passed_is_handed_on_and_not_counted_again() -> None:
    life = tally()
    life.add([orphan(5), orphan(7), orphan(3, "brushing")])

    second = tally(life.final({LABELS: 6}))
    assert second.total() == {"fraud": 1, "brushing": 1}

    second.add([orphan(7)])  # it was read again
    assert tally(second.final({LABELS: 8})).total() == {"fraud": 2, "brushing": 1}


def test_each_partition_is_passed_by_itself() -> None:
    life = tally()
    life.add([orphan(5), orphan(5, place=OTHERS)])

    assert tally(life.final({LABELS: 6})).total() == {"fraud": 1}
    assert tally(life.final({OTHERS: 6})).total() == {"fraud": 2}


def test_of_several_notes_the_latest_counts() -> None:
    assert tally({"fraud": 3}, {}, {"fraud": 3, "brushing": 1}, {"fraud": 2}).total() == {"fraud": 3, "brushing": 1}


def test_of_too_many_the_oldest_are_final_before_they_are_passed() -> None:
    life = tally(limit=2)
    life.add([orphan(3), orphan(1), orphan(2)])

    assert life.total() == {"fraud": 3}
    assert tally(life.final({LABELS: 0})).total() == {"fraud": 1}


def test_an_orphan_of_nowhere_is_final_at_once() -> None:
    life = tally()
    life.add([Orphan("fraud", "o", None)])

    assert tally(life.final({})).total() == {"fraud": 1}
