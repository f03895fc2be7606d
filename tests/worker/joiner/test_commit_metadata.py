"""Commit metadata: which rows the next run leaves out."""

import pytest

from contract.events.model import Event
from contract.messages import ScoredRow
from tests.contract.joining.builders import FEEDBACK, FRAUD, make_label, make_row, minutes_to_ms
from transport.records import TopicPartition
from worker.joiner.commit_metadata import EMPTY_METADATA, CommitMetadata, decode_metadata, encode_metadata
from worker.joiner.partitioned_joiner import PartitionedJoiner
from worker.joiner.watermarks import RecordTime

SCORED, LABELS = TopicPartition("shop.scored", 0), TopicPartition("shop.labels", 0)
WINDOW = 20 * 60  # minutes


def make_joiner() -> PartitionedJoiner:
    joiner = PartitionedJoiner(feedback=FEEDBACK, tasks=[FRAUD])
    joiner.add_partitions([SCORED])
    return joiner


def push(joiner: PartitionedJoiner, partition: TopicPartition, offset: int, message: ScoredRow | Event) -> None:
    joiner.push(partition, offset, message, RecordTime(message.ts_ms, message.ts_ms))


def test_encoded_metadata_decodes_to_the_same_value() -> None:
    metadata = CommitMetadata({"fraud": 3}, 17, 1_764_000_000_000, 1_763_000_000_000)

    assert decode_metadata(encode_metadata(metadata)) == metadata
    assert decode_metadata(encode_metadata(EMPTY_METADATA)) == decode_metadata("") == EMPTY_METADATA


@pytest.mark.parametrize("text", ["other program", "[1]", '{"orphans": {"fraud": "many"}}', "\x00"])
def test_metadata_of_another_program_decodes_as_empty(text: str) -> None:
    assert decode_metadata(text) == EMPTY_METADATA


def test_metadata_of_many_tasks_fits_the_broker_limit() -> None:
    metadata = CommitMetadata({f"task-{n}" * 4: 10**9 for n in range(20)}, 10**15, 10**13, 10**13)

    assert len(encode_metadata(metadata)) < 4_096  # the default limit of a broker


def test_a_closed_row_is_not_joined_again_by_the_next_run() -> None:
    # given a run that closed one order while another is still open
    first = make_joiner()
    push(first, SCORED, 0, make_row("order", "open", 60))
    push(first, SCORED, 1, make_row("order", "done", 0))
    push(first, SCORED, 2, make_row("click", "c", WINDOW + 20))
    assert [e.example_id for e in first.advance([SCORED, LABELS]).examples] == ["done"]
    metadata = first.commit_metadata({}, "writer")
    assert metadata == {SCORED: CommitMetadata({}, 3, minutes_to_ms(60), minutes_to_ms(5), "writer")}
    # when the next run reads from there
    second = make_joiner()
    second.restore(metadata)
    push(second, SCORED, 0, make_row("order", "open", 60))
    push(second, SCORED, 1, make_row("order", "done", 0))
    push(second, SCORED, 2, make_row("click", "c", WINDOW + 70))
    # then
    assert [e.example_id for e in second.advance([SCORED, LABELS]).examples] == ["open"]


def test_a_late_row_that_was_not_read_before_is_joined() -> None:
    joiner = make_joiner()
    joiner.restore({SCORED: CommitMetadata({}, 3, minutes_to_ms(60))})

    push(joiner, SCORED, 3, make_row("order", "late", 0))
    push(joiner, LABELS, 0, make_label(5, 1, judged_event_id="late"))

    assert [e.example_id for e in joiner.advance([SCORED, LABELS]).examples] == ["late"]


def test_a_run_that_has_not_caught_up_keeps_the_restored_metadata() -> None:
    joiner = make_joiner()
    restored = {SCORED: CommitMetadata({"fraud": 1}, 3, minutes_to_ms(60))}
    joiner.restore(restored)

    push(joiner, SCORED, 0, make_row("order", "o", 70))
    assert joiner.commit_metadata({"fraud": 2}, "writer") == {
        SCORED: CommitMetadata({"fraud": 2}, 3, minutes_to_ms(60), writer="writer")
    }

    push(joiner, SCORED, 3, make_row("order", "p", 80))
    assert joiner.commit_metadata({"fraud": 2}, "writer") == {
        SCORED: CommitMetadata({"fraud": 2}, 4, minutes_to_ms(70), writer="writer")
    }


def test_without_open_rows_all_rows_read_are_closed() -> None:
    joiner = make_joiner()

    push(joiner, SCORED, 0, make_row("click", "c", 10))

    assert joiner.commit_metadata({}, "writer") == {
        SCORED: CommitMetadata({}, 1, minutes_to_ms(10) + 1, writer="writer")
    }


def test_a_closed_order_gets_no_negative_label_when_its_early_label_is_not_reread() -> None:
    # given two orders whose labels are dated before them; the first is closed, the second open
    first = make_joiner()
    push(first, LABELS, 0, make_label(94, 1, judged_event_id="done"))
    push(first, SCORED, 0, make_row("order", "done", 100))
    push(first, LABELS, 1, make_label(95, 1, judged_event_id="open"))
    push(first, SCORED, 1, make_row("order", "open", 104))
    push(first, SCORED, 2, make_row("click", "c", WINDOW + 117))
    push(first, LABELS, 2, make_label(WINDOW + 117, 1, judged_event_id="gone"))
    assert {e.example_id for e in first.advance([SCORED, LABELS]).examples} == {"done", "open"}
    assert first.safe_offsets() == {SCORED: 0, LABELS: 1}
    # when the next run reads from there
    second = make_joiner()
    second.restore(first.commit_metadata({}, "writer"))
    push(second, SCORED, 0, make_row("order", "done", 100))
    push(second, LABELS, 1, make_label(95, 1, judged_event_id="open"))
    push(second, SCORED, 1, make_row("order", "open", 104))
    push(second, SCORED, 2, make_row("click", "c", WINDOW + 117))
    push(second, LABELS, 2, make_label(WINDOW + 117, 1, judged_event_id="gone"))
    # then
    assert {e.example_id for e in second.advance([SCORED, LABELS]).examples} == {"open"}
