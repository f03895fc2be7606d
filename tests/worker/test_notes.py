"""What one life tells the next."""

import pytest

from tests.contract.joining.shop import FEEDBACK, FRAUD, at, label, row
from worker.intake import Place
from worker.notes import NONE, Note, read, write
from worker.waiting import Waiting

SCORED, LABELS = Place("shop.scored", 0), Place("shop.labels", 0)
WINDOW = 20 * 60  # minutes


def waiting() -> Waiting:
    made = Waiting(feedback=FEEDBACK, tasks=[FRAUD])
    made.follow([SCORED])
    return made


def test_a_note_is_read_as_it_was_written() -> None:
    note = Note({"fraud": 3}, 17, 1_764_000_000_000, 1_763_000_000_000)

    assert read(write(note)) == note
    assert read(write(NONE)) == read("") == NONE


@pytest.mark.parametrize("text", ["somebody", "[1]", '{"orphans": {"fraud": "many"}}', "\x00"])
def test_a_note_that_somebody_else_has_written_is_none(text: str) -> None:
    assert read(text) == NONE


def test_a_note_is_short_however_many_tasks_there_are() -> None:
    note = Note({f"task-{n}" * 4: 10**9 for n in range(20)}, 10**15, 10**13, 10**13)

    assert len(write(note)) < 4_096  # what a broker takes by default


def test_a_row_that_was_done_with_is_not_joined_again() -> None:
    # given a life that closed an order, and whose label came before a row that is still open
    first = waiting()
    first.give(SCORED, 0, row("order", "open", 60))
    first.give(SCORED, 1, row("order", "done", 0))
    first.give(SCORED, 2, row("click", "c", WINDOW + 20))
    assert [e.example_id for e in first.advance(()).examples] == ["done"]
    notes = first.notes({})
    assert notes == {SCORED: Note({}, 3, at(60), at(5))}
    # when the next one reads from there
    second = waiting()
    second.resume(notes)
    second.give(SCORED, 0, row("order", "open", 60))
    second.give(SCORED, 1, row("order", "done", 0))
    second.give(SCORED, 2, row("click", "c", WINDOW + 70))
    # then
    assert [e.example_id for e in second.advance(()).examples] == ["open"]


def test_a_row_that_is_late_and_was_not_read_before_is_joined() -> None:
    life = waiting()
    life.resume({SCORED: Note({}, 3, at(60))})

    life.give(SCORED, 3, row("order", "late", 0))
    life.give(LABELS, 0, label(5, 1, of="late"))

    assert [e.example_id for e in life.advance(()).examples] == ["late"]


def test_a_life_that_has_not_caught_up_hands_on_what_it_was_told() -> None:
    life = waiting()
    told = {SCORED: Note({"fraud": 1}, 3, at(60))}
    life.resume(told)

    life.give(SCORED, 0, row("order", "o", 70))
    assert life.notes({"fraud": 2}) == {SCORED: Note({"fraud": 2}, 3, at(60))}

    life.give(SCORED, 3, row("order", "p", 80))
    assert life.notes({"fraud": 2}) == {SCORED: Note({"fraud": 2}, 4, at(70))}


def test_where_nothing_is_open_all_that_was_read_is_done_with() -> None:
    life = waiting()

    life.give(SCORED, 0, row("click", "c", 10))

    assert life.notes({}) == {SCORED: Note({}, 1, at(10) + 1)}


def test_an_order_that_was_done_with_is_not_called_honest_because_its_early_label_is_not_read_again() -> None:
    # given two orders whose labels are dated before them; the first one is closed, the second one open
    first = waiting()
    first.give(LABELS, 0, label(94, 1, of="done"))
    first.give(SCORED, 0, row("order", "done", 100))
    first.give(LABELS, 1, label(95, 1, of="open"))
    first.give(SCORED, 1, row("order", "open", 104))
    first.give(SCORED, 2, row("click", "c", WINDOW + 117))
    first.give(LABELS, 2, label(WINDOW + 117, 1, of="gone"))
    assert {e.example_id for e in first.advance(()).examples} == {"done", "open"}
    assert first.positions() == {SCORED: 0, LABELS: 1}
    # when the next life reads from there
    second = waiting()
    second.resume(first.notes({}))
    second.give(SCORED, 0, row("order", "done", 100))
    second.give(LABELS, 1, label(95, 1, of="open"))
    second.give(SCORED, 1, row("order", "open", 104))
    second.give(SCORED, 2, row("click", "c", WINDOW + 117))
    second.give(LABELS, 2, label(WINDOW + 117, 1, of="gone"))
    # then
    assert {e.example_id for e in second.advance(()).examples} == {"open"}
