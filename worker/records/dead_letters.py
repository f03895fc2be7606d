"""Dead letters as records: the original with its reason, and what is kept of one that is too large for its topic."""

from functools import partial
from hashlib import sha256
from typing import Final

from msgspec.structs import replace

from contract.messages import DEAD_LETTER_HEADER, DeadLetter, ScoredRow, to_json
from transport.records import Headers
from worker.kafka.outgoing import OutgoingRecord, Refusal

TOO_LARGE_TO_KEEP: Final = "too_large_to_keep"
DETAIL_CHARS_MAX: Final = 1_000


def build_dead_letter(
    topic: str, letter: DeadLetter, key: str | bytes | None, value: bytes | None, headers: Headers = ()
) -> OutgoingRecord:
    """The dead letter of a record, whole as long as its topic takes it."""
    whole = [*headers, (DEAD_LETTER_HEADER, to_json(letter))]
    return OutgoingRecord(topic, key, value, whole, partial(shorten, letter))


def shorten(letter: DeadLetter, record: OutgoingRecord, refusal: Refusal) -> OutgoingRecord:
    """A dead letter that the topic takes: the value cut, at last without value, original key and headers.

    The size and the SHA-256 of the value stay, and the position of the original record.
    """
    value = record.value or b""
    kept = replace(
        letter,
        reason=TOO_LARGE_TO_KEEP,
        detail=f"{letter.reason}: {letter.detail} {refusal.reason}"[:DETAIL_CHARS_MAX],
        value_bytes=len(value),
        value_sha256=sha256(value).hexdigest(),
    )
    header, original = (DEAD_LETTER_HEADER, to_json(kept)), record.headers[:-1]
    for key, headers in ((record.key, [*original, header]), (record.key, [header])):
        without_value = OutgoingRecord(record.topic, key, b"", headers)
        room = refusal.bytes_max - without_value.count_bytes()
        if room >= 0:
            return without_value._replace(value=value[:room])
    position = f"{letter.topic}/{letter.partition}/{letter.offset}"  # a compacted topic refuses a record without a key
    brief = (DEAD_LETTER_HEADER, to_json(replace(kept, detail=letter.reason, error="", model_version="")))
    return OutgoingRecord(record.topic, position, b"", [brief])


def report_undeliverable(
    letters_topic: str, row: ScoredRow, answer: OutgoingRecord, refusal: Refusal
) -> OutgoingRecord:
    """The dead letter in place of an answer that its topic does not take, with the position of the event of `row`."""
    letter = DeadLetter(
        reason=TOO_LARGE_TO_KEEP,
        error="RecordRefused",
        detail=refusal.reason,
        topic=row.topic,
        partition=row.partition,
        offset=row.offset,
        attempts=1,
        model_version=row.model_version,
    )
    return build_dead_letter(letters_topic, letter, answer.key, answer.value)
