"""Builds answers, and reads those of a batch by their kind."""

from typing import Any, TypeVar

from contract.messages import ScoredKind, ScoredRow
from worker.records.answers import Answer, AnswerKind
from worker.scoring.results import BatchResults

M = TypeVar("M")
SCORED_KINDS: dict[str, ScoredKind] = {"decision": "order", "list": "recommendation", "ranking": "search"}


def make_answer(kind: AnswerKind, message: Any) -> Answer:
    """An answer with this message, and a scored row without features."""
    scored = ScoredRow(
        event_id=getattr(message, "event_id", "e"),
        kind=SCORED_KINDS[kind.name],
        user_id=message.user_id,
        ts_ms=0,
        topic="shop.orders",
        partition=0,
        offset=0,
        model_version="",
        features="",
        groups={},
    )
    return Answer(kind, scored, message)


def read_answers(results: BatchResults, message: type[M]) -> list[tuple[M, ScoredRow]]:
    """The messages of one type, each with its scored row."""
    return [(answer.message, answer.scored) for answer in results.answers if isinstance(answer.message, message)]


def read_messages(results: BatchResults, message: type[M]) -> list[M]:
    return [answer for answer, _ in read_answers(results, message)]


def read_rows(results: BatchResults, *kinds: AnswerKind) -> list[ScoredRow]:
    """The scored rows of these kinds of answers, all kinds by default."""
    return [answer.scored for answer in results.answers if not kinds or answer.kind in kinds]
