"""A shop's files as one history: read, checked, sorted, and written as a folder that appears as a whole."""

import shutil
import tempfile
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt
import xxhash

from contract.errors import BadConfig, BadData, BadEvent
from contract.events.model import Event
from contract.history.format import FORMAT, KIND_ORDER, MANIFEST, REPORT, HistoryManifest, read_line
from contract.mapping.envelopes import Skipped
from training.history.decoding import RANKS, DocumentDecoder
from training.history.finding_examples import FindingExamples
from training.history.id_checks import (
    FOREIGN_LABELS,
    IdChecks,
    describe_conflict,
    describe_foreign_label,
    describe_unmet,
)
from training.history.inputs import InputFile, read_documents
from training.history.report import Finding, HistoryReport
from training.history.sorted_runs import RUN_BYTES, SortedRuns, make_key, split_key

PART_EVENTS: Final = 1_000_000
UNKNOWN_KIND: Final = "unknown"
encode: Final = msgspec.json.Encoder().encode
OnProgress = Callable[[str, int, int], None]  # step, what is done of it, and the whole


class Normalisation:
    """One run over some files, with a folder for what does not fit in memory."""

    def __init__(
        self,
        *,
        files: Sequence[InputFile],
        scratch: Path,
        decoder: DocumentDecoder,
        until_ms: int | None = None,
        on_progress: OnProgress = lambda step, done, whole: None,
        run_bytes: int = RUN_BYTES,
        part_events: int = PART_EVENTS,
    ) -> None:
        """`until_ms`: leave out events at or after this time."""
        self._files, self._decoder, self._until_ms = files, decoder, until_ms
        self._on_progress, self._part_events = on_progress, part_events
        self._runs, self._ids = SortedRuns(scratch, run_bytes=run_bytes), IdChecks(scratch)
        self._first_numbers: list[int] = []  # of the records of each file
        self._sorted = 0
        self.report = HistoryReport()

    def write(self, folder: Path) -> HistoryManifest:
        """Read all files and write the history; raises `BadData` where there is no event, and then writes nothing."""
        started_s = time.monotonic()
        whole, done = sum(file.size for file in self._files), 0
        for file in self._files:
            self._read_file(file, done, whole)
            done += file.size
        if not self._sorted:
            raise BadData(self.report.describe_emptiness())
        self.report.ignored, self.report.doubtful = self._decoder.ignored, self._decoder.doubtful
        manifest = self._write_parts(folder)
        self.report.seconds = round(time.monotonic() - started_s, 1)
        (folder / REPORT).write_bytes(msgspec.json.format(encode(self.report)))
        (folder / MANIFEST).write_bytes(msgspec.json.format(encode(manifest)))
        return manifest

    def _read_file(self, file: InputFile, done: int, whole: int) -> None:
        self._first_numbers.append(self.report.records)
        previous_ms, read_bytes = 0, 0
        for document in read_documents(file):
            number = self.report.records
            self.report.records += 1
            if isinstance(document, bytes):
                read_bytes += len(document) + 1
            if number % 10_000 == 0:
                self._on_progress("reading", done + read_bytes, whole)
            if not document:
                continue  # an empty line
            try:
                kind, event = self._decoder.decode(file, document)
            except Skipped as skipped:
                self.report.skip(file.content, self._find_place(number), str(skipped))
                continue
            except BadEvent as error:
                self.report.refuse(file.content or UNKNOWN_KIND, error.reason, self._find_place(number), str(error))
                continue
            if event.ts_ms < previous_ms:
                self.report.out_of_order[kind] += 1
                self.report.late_ms = max(self.report.late_ms, previous_ms - event.ts_ms)
            previous_ms = max(previous_ms, event.ts_ms)
            self._add(kind, event, number)

    def _add(self, kind: str, event: Event, number: int) -> None:
        if self._until_ms is not None and event.ts_ms >= self._until_ms:
            self.report.left_out[kind] += 1
            return
        self._ids.add(kind, event, number)
        self._runs.add(make_key(event.ts_ms, RANKS[kind], number), encode_line(kind, event))
        self._sorted += 1

    def _write_parts(self, folder: Path) -> HistoryManifest:
        report, digest, parts = self.report, xxhash.xxh3_128(), list[str]()
        lines = self._sort_lines()
        while part := self._write_part(folder / f"part-{len(parts):05}.jsonl", lines, digest):
            parts.append(part)
        assert report.first_ms is not None
        assert report.last_ms is not None
        return HistoryManifest(
            format=FORMAT,
            digest=digest.hexdigest(),
            records=report.events,
            kinds=dict(report.kinds),
            first_ms=report.first_ms,
            last_ms=report.last_ms,
            parts=tuple(parts),
        )

    def _write_part(self, path: Path, lines: Iterator[bytes], digest: xxhash.xxh3_128) -> str | None:
        """Write the next part; returns its name, or None if there is no line left."""
        if (first := next(lines, None)) is None:
            return None
        with path.open("wb", buffering=2**20) as file:
            count, line = 1, first
            while True:
                digest.update(line)
                file.write(line)
                if count == self._part_events or (following := next(lines, None)) is None:
                    return path.name
                count, line = count + 1, following

    def _sort_lines(self) -> Iterator[bytes]:
        """The lines in order, without repeats; completes the report."""
        report, repeats, examples = self.report, self._ids.find_repeats(), FindingExamples(self._find_place)
        is_duplicate = to_mask(repeats.equal, report.records)
        is_conflict = to_mask(repeats.other[:, 0], report.records)
        report.unmet = self._find_unmet(examples)
        if len(repeats.other):
            report.conflicts = examples.note(repeats.other, describe_conflict)
        for done, (key, line) in enumerate(self._runs.read()):
            ts_ms, rank, number = split_key(key)
            if done % 10_000 == 0:
                self._on_progress("writing", done, self._sorted)
            if examples.wants(number):
                examples.add_event(number, read_line(line, "a sorted run").event)
            if is_conflict[number]:
                continue
            if is_duplicate[number]:
                report.duplicates[KIND_ORDER[rank]] += 1
                continue
            report.events += 1
            report.kinds[KIND_ORDER[rank]] += 1
            report.first_ms = ts_ms if report.first_ms is None else report.first_ms
            report.last_ms = ts_ms
            yield line
        examples.describe()

    def _find_unmet(self, examples: FindingExamples) -> dict[str, Finding]:
        findings = {
            name: examples.note(numbers, partial(describe_unmet, name))
            for name, numbers in self._ids.find_unmet().items()
        }
        if len(foreign := self._ids.find_foreign_labels()):
            findings[FOREIGN_LABELS] = examples.note(foreign, describe_foreign_label)
        return findings

    def _find_place(self, number: int) -> str:
        """The file of a record, and its number there."""
        index = bisect_right(self._first_numbers, number) - 1
        return f"{self._files[index].path.name}:{number - self._first_numbers[index] + 1}"


def encode_line(kind: str, event: Event) -> bytes:
    """The line of an event, without its absent fields."""
    fields = {name: value for name in event.__struct_fields__ if (value := getattr(event, name)) is not None}
    return b'{"kind":"%b","event":%b}\n' % (kind.encode(), encode(fields))


def to_mask(numbers: npt.NDArray[np.uint64], length: int) -> bytearray:
    """For each number below `length` 1 if it is among `numbers`."""
    mask = np.zeros(length, np.uint8)
    mask[numbers] = 1
    return bytearray(mask)


def write_history(
    folder: Path,
    files: Sequence[InputFile],
    *,
    decoder: DocumentDecoder,
    until_ms: int | None = None,
    on_progress: OnProgress = lambda step, done, whole: None,
) -> tuple[HistoryManifest, HistoryReport]:
    """Write a history that appears at `folder` only when it is complete; raises `BadConfig` if the folder exists."""
    if folder.exists():
        raise BadConfig([f"--out should be a folder that does not exist yet. Found {folder}."])
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise BadConfig([f"--out should be a folder that can be written. Found: {error}"]) from error
    try:
        scratch = unfinished / "scratch"
        scratch.mkdir()
        normalisation = Normalisation(
            files=files, scratch=scratch, decoder=decoder, until_ms=until_ms, on_progress=on_progress
        )
        manifest = normalisation.write(unfinished)
        shutil.rmtree(scratch)
        unfinished.chmod(0o755)
        unfinished.rename(folder)
    except OSError as error:
        raise BadData(f"{folder} should be written as a whole. Found: {error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return manifest, normalisation.report
