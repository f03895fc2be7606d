"""Reader of historic events: JSON Lines in order of time, {"kind": "orders", "event": {...}} on each line."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec import Struct

from contract.errors import BadData, BadEvent
from contract.events import KINDS, READERS, Event, EventReaders


class JsonLine(Struct):
    """One line, its event not yet decoded."""

    kind: str
    event: msgspec.Raw


class HistoricEvent(NamedTuple):
    """An event and the kind of the topic that it would have been on."""

    kind: str
    event: Event


def read_history(
    paths: Sequence[Path], rejected: Counter[str], readers: EventReaders = READERS
) -> Iterator[HistoricEvent]:
    """The events of the files, one file after the other; events that a worker would reject are counted by reason.

    Raises `BadData` for a file that cannot be read, or a line of another form.
    """
    decoder = msgspec.json.Decoder(JsonLine)
    for path in paths:
        try:
            with path.open("rb") as file:
                for number, text in enumerate(file, 1):
                    if text.strip():
                        yield from decode_line(decoder.decode(text), f"{path.name}:{number}", rejected, readers)
        except OSError as error:
            raise BadData(f"{path} should be a readable file. Found: {error}") from error
        except msgspec.MsgspecError as error:
            raise BadData(f'{path.name}:{number} should be {{"kind": ..., "event": ...}}. Found: {error}') from error


def decode_line(
    line: JsonLine, location: str, rejected: Counter[str], readers: EventReaders
) -> Iterator[HistoricEvent]:
    """The line's event, if it is valid."""
    if line.kind not in KINDS:
        raise BadData(f"{location} should have a kind among {sorted(KINDS)}. Found {line.kind!r}.")
    try:
        yield HistoricEvent(line.kind, readers[line.kind].read(bytes(line.event)))
    except BadEvent as error:
        rejected[error.reason] += 1
