"""What one life tells the next."""

import pytest

from tests.contract.joining.builders import FEEDBACK, FRAUD, make_label, make_row, minutes_to_ms
from transport.records import TopicPartition
from worker.joiner.commit_metadata import EMPTY_METADATA, CommitMetadata, decode_metadata, encode_metadata
from worker.joiner.partitioned_joiner import PartitionedJoiner

SCORED, LABELS = TopicPartition("shop.scored", 0), TopicPartition("shop.labels", 0)
WINDOW = 20 * 60  # minutes


def make_joiner() -> PartitionedJoiner:
    made = PartitionedJoiner(feedback=FEEDBACK, tasks=[FRAUD])
    made.add_partitions([SCORED])
    return made


def test_a_note_is_read_as_it_was_written() -> None:
    note = CommitMetadata({"fraud": 3}, 17, 1_764_000_000_000, 1_763_000_000_000)

    assert decode_metadata(encode_metadata(note)) == note
    assert decode_metadata(encode_metadata(EMPTY_METADATA)) == decode_metadata("") == EMPTY_METADATA


@pytest.mark.parametrize("text", ["somebody", "[1]", '{"orphans": {"fraud": "many"}}', "\x00"])
def test_a_note_that_somebody_else_has_written_is_none(text: str) -> None:
    assert decode_metadata(text) == EMPTY_METADATA


def test_a_note_is_short_however_many_tasks_there_are() -> None:
    note = CommitMetadata({f"task-{n}" * 4: 10**9 for n in range(20)}, 10**15, 10**13, 10**13)

    assert len(encode_metadata(note)) < 4_096  # what a broker takes by default


def test_a_row_that_was_done_with_is_not_joined_again() -> None:
    # given a life that closed an order, and whose label came before a row that is still open
    first = make_joiner()
    first.push(SCORED, 0, make_row("order", "open", 60))
    first.push(SCORED, 1, make_row("order", "done", 0))
    first.push(SCORED, 2, make_row("click", "c", WINDOW + 20))
    assert [e.example_id for e in first.advance(()).examples] == ["done"]
    notes = first.commit_metadata({})
    assert notes == {SCORED: CommitMetadata({}, 3, minutes_to_ms(60), minutes_to_ms(5))}
    # when the next one reads from there
    second = make_joiner()
    second.restore(notes)
    second.push(SCORED, 0, make_row("order", "open", 60))
    second.push(SCORED, 1, make_row("order", "done", 0))
    second.push(SCORED, 2, make_row("click", "c", WINDOW + 70))
    # then
    assert [e.example_id for e in second.advance(()).examples] == ["open"]


def test_a_row_that_is_late_and_was_not_read_before_is_joined() -> None:
    life = make_joiner()
    life.restore({SCORED: CommitMetadata({}, 3, minutes_to_ms(60))})

    life.push(SCORED, 3, make_row("order", "late", 0))
    life.push(LABELS, 0, make_label(5, 1, judged_event_id="late"))

    assert [e.example_id for e in life.advance(()).examples] == ["late"]


def test_a_life_that_has_not_caught_up_hands_on_what_it_was_told() -> None:
    life = make_joiner()
    told = {SCORED: CommitMetadata({"fraud": 1}, 3, minutes_to_ms(60))}
    life.restore(told)

    life.push(SCORED, 0, make_row("order", "o", 70))
    assert life.commit_metadata({"fraud": 2}) == {SCORED: CommitMetadata({"fraud": 2}, 3, minutes_to_ms(60))}

    life.push(SCORED, 3, make_row("order", "p", 80))
    assert life.commit_metadata({"fraud": 2}) == {SCORED: CommitMetadata({"fraud": 2}, 4, minutes_to_ms(70))}


def test_where_nothing_is_open_all_that_was_read_is_done_with() -> None:
    life = make_joiner()

    life.push(SCORED, 0, make_row("click", "c", 10))

    assert life.commit_metadata({}) == {SCORED: CommitMetadata({}, 1, minutes_to_ms(10) + 1)}


def test_an_order_that_was_done_with_is_not_called_honest_because_its_early_label_is_not_read_again() -> None:
    # given two orders whose labels are dated before them; the first one is closed, the second one open
    first = make_joiner()
    first.push(LABELS, 0, make_label(94, 1, judged_event_id="done"))
    first.push(SCORED, 0, make_row("order", "done", 100))
    first.push(LABELS, 1, make_label(95, 1, judged_event_id="open"))
    first.push(SCORED, 1, make_row("order", "open", 104))
    first.push(SCORED, 2, make_row("click", "c", WINDOW + 117))
    first.push(LABELS, 2, make_label(WINDOW + 117, 1, judged_event_id="gone"))
    assert {e.example_id for e in first.advance(()).examples} == {"done", "open"}
    assert first.safe_offsets() == {SCORED: 0, LABELS: 1}
    # when the next life reads from there
    second = make_joiner()
    second.restore(first.commit_metadata({}))
    second.push(SCORED, 0, make_row("order", "done", 100))
    second.push(LABELS, 1, make_label(95, 1, judged_event_id="open"))
    second.push(SCORED, 1, make_row("order", "open", 104))
    second.push(SCORED, 2, make_row("click", "c", WINDOW + 117))
    second.push(LABELS, 2, make_label(WINDOW + 117, 1, judged_event_id="gone"))
    # then
    assert {e.example_id for e in second.advance(()).examples} == {"open"}
