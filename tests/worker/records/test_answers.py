"""Answers: encoded once, and equal by what they say."""

import pytest
from msgspec.structs import replace

from contract.messages import Decision, read_decision, read_scored_row
from tests.worker.answers import make_answer
from worker.records.answers import CLICK, DECISION, Answer


@pytest.fixture
def answer() -> Answer:
    decision = Decision(
        event_id="o1", user_id="u", ts_ms=1, probability={}, action="approve", reasons=(), model_version="v1"
    )
    return make_answer(DECISION, decision)


def test_an_answer_is_encoded_once(answer: Answer) -> None:
    row, message = answer.encode_row(), answer.encode_message()

    assert answer.encode_row() is row
    assert answer.encode_message() is message


def test_a_changed_answer_is_encoded_by_its_changes(answer: Answer) -> None:
    # given
    answer.encode_row()
    answer.encode_message()
    # when
    changed = answer.replace(
        scored=replace(answer.scored, is_conflict=True), message=replace(answer.message, action="review")
    )
    # then
    assert read_scored_row(changed.encode_row()) == changed.scored
    assert read_decision(changed.encode_message()).action == "review"
    assert read_decision(answer.encode_message()).action == "approve"


def test_answers_are_equal_by_what_they_say_whether_encoded_or_not(answer: Answer) -> None:
    # given
    same = replace(answer)
    # when
    answer.encode_row()
    # then
    assert answer == same
    for changes in (
        {"kind": CLICK},
        {"scored": replace(answer.scored, offset=1)},
        {"message": replace(answer.message, action="review")},
        {"digest": "aa"},
    ):
        assert answer != answer.replace(**changes)
    assert answer != "an answer"
