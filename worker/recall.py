"""Reading back what earlier lives of the joiner have said, from the topics that it writes.

Positions lag behind what waits, so a new life reads much again, and would say it again. What its records can have led
to was written after the earliest of them: from there on the joiner's own topics tell what was said already.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec
from msgspec import Struct

from contract.settings import Settings
from worker.follower import Log
from worker.intake import Held, Place, Record
from worker.said import Said, example_key, judgement_key

log = logging.getLogger(__name__)
# Kafka's times of what is read may lie ahead of those of what is written: by default a broker takes records up to an
# hour ahead of its clock, and clocks differ by minutes.
AHEAD_MS: Final = 70 * 60 * 1000


class SaidExample(Struct, frozen=True, gc=False):
    """What of an example tells which one it is."""

    example_id: str
    revision: int
    item_id: str = ""


class SaidJudgement(Struct, frozen=True, gc=False):
    """What of a judgement tells which one it is."""

    judged_event_id: str
    event_id: str
    task: str


read_example: Final = msgspec.msgpack.Decoder(SaidExample).decode
read_judgement: Final = msgspec.json.Decoder(SaidJudgement).decode


class Recall:
    """Reads what was said. `meanwhile` is called after each chunk of records."""

    def __init__(self, *, settings: Settings, meanwhile: Callable[[], None]) -> None:
        self._topics = (settings.topics.feedback, settings.topics.judgements)
        self._kafka, self._limit, self._meanwhile = settings.kafka, settings.feedback.said_max, meanwhile

    def said(self, held: Mapping[Place, Held]) -> Said:
        """What was said of records from the group's positions on; raises `Unavailable`.

        Nobody may write to the topics any more under the name of this joiner but this one.
        """
        said, reader = Said(limit=self._limit), Log(kafka=self._kafka)
        try:
            first_ms = reader.first_ms({place: start_of(at) for place, at in held.items()})
            if first_ms is not None:
                for records in self._records(reader, first_ms - AHEAD_MS):
                    self._remember(said, records)
                    self._meanwhile()
        finally:
            reader.close()
        said.close()
        log.info(
            "What is read again had led to at most %d examples and judgements; none is published twice.", len(said)
        )
        return said

    def _records(self, reader: Log, begin_ms: int) -> Iterable[list[Record]]:
        ends = {place: extent.high for place, extent in reader.extents(self._topics).items()}
        return reader.read(ends, reader.offsets_at(ends, max(0, begin_ms)))

    def _remember(self, said: Said, records: Iterable[Record]) -> None:
        keys, rows = list[str](), list[str]()
        for record in records:
            try:
                if record.place.topic == self._topics[0]:
                    example = read_example(record.value or b"")
                    keys.append(example_key(example.example_id, example.revision))
                    rows += [] if example.item_id else [example.example_id]
                else:
                    judgement = read_judgement(record.value or b"")
                    keys.append(judgement_key(judgement.judged_event_id, judgement.event_id, judgement.task))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                pass  # whoever wrote it, it was no joiner
        said.remember(keys, rows)


def start_of(held: Held) -> int:
    """Where the group goes on in a partition."""
    return held.low if held.committed is None else max(held.low, held.committed)
