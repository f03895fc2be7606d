"""A sorted history: a folder of events from before the topics, written by `training history`.

    manifest.json       what is in it; written last, so a folder without one is no history
    report.json         what was found in the input
    part-00000.jsonl    lines of {"kind": ..., "event": ...}, in order of time

Of equal times the kinds follow each other in the order of `KIND_ORDER`; within one kind the order of the input stays.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from msgspec import Struct

from contract.errors import BadData, BadEvent
from contract.events.model import KINDS, Event
from contract.events.reading import make_readers
from contract.settings.intake import IntakeSettings

MANIFEST: Final = "manifest.json"
REPORT: Final = "report.json"
FORMAT: Final = 1
# Its events are read already: only an empty id, which a guest's event has, is none of our form.
READERS: Final = make_readers(IntakeSettings(placeholders=("",), private_networks=()))
# A list is made with the catalogue before it, and precedes what happens in it; a label follows what it judges.
KIND_ORDER: Final = ("products", "searches", "impressions", "clicks", "orders", "reviews", "judgements", "labels")


class JsonLine(Struct):
    """One line, its event not yet decoded."""

    kind: str
    event: msgspec.Raw


class HistoricEvent(NamedTuple):
    """An event and the kind of the topic that it would have been on."""

    kind: str
    event: Event


class HistoryManifest(Struct, frozen=True, kw_only=True):
    """What a history holds. `digest` identifies its content; times are event times in milliseconds."""

    format: int
    digest: str
    records: int
    kinds: Mapping[str, int]
    first_ms: int
    last_ms: int
    parts: tuple[str, ...]


decode_line: Final = msgspec.json.Decoder(JsonLine).decode
decode_manifest: Final = msgspec.json.Decoder(HistoryManifest).decode


def read_manifest(folder: Path) -> HistoryManifest:
    """The manifest of a history; raises `BadData` for anything else."""
    path = folder / MANIFEST
    try:
        manifest = decode_manifest(path.read_bytes())
    except (OSError, msgspec.MsgspecError) as error:
        raise BadData(
            f"{folder} should be a history that `python -m training history` wrote. Found: {error}"
        ) from error
    if manifest.format != FORMAT:
        raise BadData(f"{path} should have format {FORMAT}. Found {manifest.format}: write the history again.")
    return manifest


def read_events(folder: Path) -> Iterator[HistoricEvent]:
    """The events of a history in order; raises `BadData` for one that was changed or cut."""
    manifest, count = read_manifest(folder), 0
    for name in manifest.parts:
        path = folder / name
        try:
            with path.open("rb") as file:
                for number, text in enumerate(file, 1):
                    count += 1
                    yield read_line(text, f"{name}:{number}")
        except OSError as error:
            raise BadData(f"{path} should be a readable part of the history. Found: {error}") from error
    if count != manifest.records:
        raise BadData(f"{folder} should have {manifest.records:,} events. Found {count:,}: write the history again.")


def read_line(text: bytes, place: str) -> HistoricEvent:
    """The event of one line; raises `BadData`."""
    try:
        line = decode_line(text)
        if line.kind not in KINDS:
            raise BadData(f"{place} should have a kind among {sorted(KINDS)}. Found {line.kind!r}.")
        return HistoricEvent(line.kind, READERS[line.kind].read(bytes(line.event)))
    except (msgspec.MsgspecError, UnicodeDecodeError, BadEvent) as error:
        raise BadData(f"{place} should be a line that `training history` wrote. Found: {error}") from error
