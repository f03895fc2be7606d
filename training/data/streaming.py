"""Out-of-core examples: Parquet files, read in chunks in each epoch.

Held-out rows are chosen as for examples in memory, from times and labels alone (about 40 bytes a row). Statistics are
measured on a bounded sample spread evenly over the training part, and epochs are validated on such a sample of the
held-out part. An epoch reads row groups in a new order, a few at a time, so a chunk mixes rows that were written far
apart. Files should hold each example once: revisions are resolved only within a chunk.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contract.arrays import Integers, Mask
from contract.features.declaration import FeatureSet
from contract.profiles.erasures import NO_ERASURES, Erasures
from contract.tasks import Task
from training.data.erased_rows import IDENTITY, drop_erased, find_erased
from training.data.examples import Examples
from training.data.identity import read_times_ms
from training.data.labels import Classes, read_label
from training.data.parquet import check_same_features, merge_tables, open_parquet, parse_examples, parse_table
from training.data.split import find_first_label, select_latest

CHUNK_ROWS: Final = 65_536  # rows in memory at a time, in addition to the samples
OPEN_GROUPS: Final = 4  # row groups that a chunk is taken from
STATISTICS_ROWS: Final = 500_000  # the sample that statistics are measured on
HELD_OUT_ROWS: Final = 200_000  # the sample for calibration and validation


class RowGroup(NamedTuple):
    """A row group of a file: `rows` that are used, the first of which is number `begin` of all files."""

    path: Path
    number: int
    begin: int
    rows: int


class ExampleStream:
    """The examples of some files. `classes`: of some tasks; for other tasks they are collected from the labels.

    N is the number of rows that `erasures` do not cover: the others are dropped wherever a row group is read.
    """

    def __init__(
        self,
        *,
        paths: Sequence[Path],
        features: FeatureSet,
        tasks: Sequence[Task],
        classes: Classes | None = None,
        erasures: Erasures = NO_ERASURES,
    ) -> None:
        self.features, self.tasks = features, tuple(tasks)
        self._name = " + ".join(path.name for path in paths)
        schemas = [open_parquet(path).schema_arrow.empty_table() for path in paths]
        check_same_features([path.name for path in paths], schemas, features)
        self._erasures = erasures
        self._groups = list(list_row_groups(paths, erasures))
        self._metadata = RowMetadata.read(self._groups, self.tasks, erasures)
        class_names = {
            task.name: self._metadata.distinct_labels[task.name] for task in tasks if task.kind == "multiclass"
        }
        self.classes = {
            name: (classes or {}).get(name) or tuple(sorted(labels)) for name, labels in class_names.items()
        }

    def __len__(self) -> int:
        return len(self._metadata.ts_ms)

    @property
    def distinct_labels(self) -> Mapping[str, set[Any]]:
        """Distinct labels of each task; of numbers only the least and the greatest."""
        return self._metadata.distinct_labels

    def iterate_bytes(self) -> Iterator[bytes]:
        """All bytes of the files, and the times of the rows that are used, for a digest."""
        for path in dict.fromkeys(group.path for group in self._groups):
            with path.open("rb") as file:
                while part := file.read(1 << 20):
                    yield part
        yield self._metadata.ts_ms.tobytes()

    def select_held_out(self, share: float) -> Mask:
        """Which rows (N,) are the latest of their family."""
        return select_latest(self._metadata.ts_ms, self._metadata.family, share)

    def sample(self, rows: Mask, limit: int) -> Examples:
        """At most `limit` of these rows (N,), spread evenly."""
        selected = np.flatnonzero(rows)
        chosen = np.zeros(len(self), np.bool_)
        chosen[selected[np.linspace(0, len(selected) - 1, min(limit, len(selected))).astype(np.int64)]] = True
        parts = [self._read_group(group, chosen) for group in self._groups]
        table = merge_tables([self._name], [part for part in parts if len(part)])
        return parse_examples(self._name, table, self.features, self.tasks, self.classes)

    def iterate_chunks(self, rows: Mask, rng: np.random.Generator | None = None) -> Iterator[Examples]:
        """All of these rows (N,) in chunks; row groups in file order, or shuffled by `rng`."""
        groups = self._groups if rng is None else [self._groups[index] for index in rng.permutation(len(self._groups))]
        waiting, readers = iter(groups), list[Iterator[Any]]()
        while True:
            while len(readers) < OPEN_GROUPS and (group := next(waiting, None)) is not None:
                readers.append(self._iterate_batches(group, rows))
            if not readers:
                return
            parts = [(reader, next(reader, None)) for reader in readers]
            readers = [reader for reader, part in parts if part is not None]
            if tables := [part for _, part in parts if part is not None and len(part)]:
                table = merge_tables([self._name], tables)
                examples = parse_table(self._name, table, self.features, self.tasks, self.classes)
                if len(examples):  # rows without labels are dropped
                    yield examples

    def _read_group(self, group: RowGroup, rows: Mask) -> Any:
        """These rows (N,) of a row group, which is read only if it has any."""
        if not rows[group.begin :][: group.rows].any():
            return pa.table({})
        return pa.concat_tables(self._iterate_batches(group, rows))

    def _iterate_batches(self, group: RowGroup, rows: Mask) -> Iterator[Any]:
        """These rows (N,) of a row group, a share of a chunk at a time."""
        start = group.begin
        file = open_parquet(group.path)
        for batch in file.iter_batches(batch_size=CHUNK_ROWS // OPEN_GROUPS, row_groups=[group.number]):
            table = drop_erased(pa.Table.from_batches([batch]), self._erasures)
            mask = rows[start : start + len(table)]
            start += len(table)
            yield table.filter(pa.array(mask)).replace_schema_metadata(file.schema_arrow.metadata)


class RowMetadata(NamedTuple):
    """What is read of every row without its features: times and families (N,), and distinct labels of each task."""

    ts_ms: Integers
    family: Integers
    distinct_labels: Mapping[str, set[Any]]

    @classmethod
    def read(cls, groups: Sequence[RowGroup], tasks: Sequence[Task], erasures: Erasures) -> "RowMetadata":
        ts_ms, family = list[Integers](), list[Integers]()
        distinct_labels: dict[str, set[Any]] = {task.name: set() for task in tasks}
        for group in groups:
            columns = (*IDENTITY, *(f"label.{task.name}" for task in tasks))
            table = drop_erased(read_columns(group.path, group.number, columns), erasures)
            ts_ms.append(read_times(table))
            labelled = [np.zeros(len(table), np.bool_) for _ in tasks]
            for number, task in enumerate(tasks):
                if f"label.{task.name}" in table.column_names:
                    label = table.column(f"label.{task.name}")
                    labelled[number] = label.is_valid().to_numpy()
                    distinct_labels[task.name] |= find_distinct_labels(label, task)
            family.append(find_first_label(labelled, len(table)))
        return cls(np.concatenate(ts_ms), np.concatenate(family), distinct_labels)


def find_distinct_labels(label: Any, task: Task) -> set[Any]:
    """The distinct labels of a column; of numbers the least and the greatest."""
    if task.kind == "multiclass" or not pa.types.is_primitive(label.type):
        values = label.drop_null().unique().to_pylist()
    else:
        values = pc.min_max(label).as_py().values()
    return {read_label(task, value) for value in values} - {None}


def read_times(table: Any) -> Integers:
    if "ts_ms" not in table.column_names:
        return np.zeros(len(table), np.int64)
    return np.asarray(pc.fill_null(read_times_ms(table.column("ts_ms"), "ts_ms"), 0).to_numpy(), np.int64)


def list_row_groups(paths: Sequence[Path], erasures: Erasures) -> Iterator[RowGroup]:
    """The row groups of the files, in order; raises `BadData` for a file that is not Parquet."""
    begin = 0
    for path in paths:
        metadata = open_parquet(path).metadata
        for number in range(metadata.num_row_groups):
            rows = metadata.row_group(number).num_rows
            if len(erasures):
                rows -= int(find_erased(read_columns(path, number, IDENTITY), erasures).sum())
            yield RowGroup(path, number, begin, rows)
            begin += rows


def read_columns(path: Path, group: int, names: Sequence[str]) -> Any:
    """Those of the columns that the file has, of one row group."""
    file = open_parquet(path)
    return file.read_row_group(group, columns=[name for name in names if name in file.schema_arrow.names])
