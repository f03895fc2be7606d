"""Reader of historic events in order of time: a history that `training history` wrote, or JSON Lines.

A line is {"kind": "orders", "event": {...}}.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from contract.errors import BadData, BadEvent
from contract.events.model import KINDS
from contract.events.reading import READERS, EventReaders
from contract.history.format import HistoricEvent, JsonLine, decode_line, read_events


def read_history(
    paths: Sequence[Path], rejected: Counter[str], readers: EventReaders = READERS
) -> Iterator[HistoricEvent]:
    """The events of the files, one file after the other; events that a worker would reject are counted by reason.

    A folder is a sorted history. Its judgements are left out: a replay makes its own from the labels.
    Raises `BadData` for a file that cannot be read, or a line of another form.
    """
    for path in paths:
        if path.is_dir():
            yield from (historic for historic in read_events(path) if historic.kind != "judgements")
            continue
        try:
            with path.open("rb") as file:
                for number, text in enumerate(file, 1):
                    if text.strip():
                        yield from read_event(decode_line(text), f"{path.name}:{number}", rejected, readers)
        except OSError as error:
            raise BadData(f"{path} should be a readable file. Found: {error}") from error
        except msgspec.MsgspecError as error:
            raise BadData(f'{path.name}:{number} should be {{"kind": ..., "event": ...}}. Found: {error}') from error


def read_event(line: JsonLine, location: str, rejected: Counter[str], readers: EventReaders) -> Iterator[HistoricEvent]:
    """The line's event, if it is valid."""
    if line.kind not in KINDS:
        raise BadData(f"{location} should have a kind among {sorted(KINDS)}. Found {line.kind!r}.")
    try:
        yield HistoricEvent(line.kind, readers[line.kind].read(bytes(line.event)))
    except BadEvent as error:
        rejected[error.reason] += 1
