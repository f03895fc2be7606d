"""Examples in memory: features as served and the labels known by now, as arrays that batches are taken from.

`training.data.parquet` keeps them as Parquet, `training.feedback.feedback_reader` brings them from the feedback topic.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from contract.errors import BadData
from contract.features.declaration import GROUPS, Block, FeatureSet
from contract.messages import Example, PackedBlock, pack_rows
from contract.tasks import Task
from training.data.labels import Classes, RawLabel, collect_classes, encode_labels, has_any_label, has_label

Strings: TypeAlias = npt.NDArray[np.object_]
Integers: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """N examples in the order of time, each with a label of some task, the newest revision of each id.

    `blocks` has every group, a group that a row lacks being empty in it. `labels` (N,) are float32, NaN where unknown;
    of classes int64, the number in `classes`, -1 where unknown. `known_ms` (N,): when a label came, 0 if none did.
    """

    features: FeatureSet
    tasks: tuple[Task, ...]
    classes: Classes
    blocks: Mapping[str, Block]
    labels: Mapping[str, npt.NDArray[Any]]
    known_ms: Mapping[str, Integers]
    example_id: Strings
    revision: Integers
    event_id: Strings
    user_id: Strings
    item_id: Strings
    ts_ms: Integers

    def __len__(self) -> int:
        return len(self.ts_ms)

    def take(self, rows: Integers | npt.NDArray[np.bool_]) -> Self:
        """Some of the examples, by number or by mask."""
        indices = np.arange(len(self))[rows]
        changed: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        changed["blocks"] = {group: block.take(indices) for group, block in self.blocks.items()}
        for name in ("labels", "known_ms"):
            changed[name] = {task: column[indices] for task, column in changed[name].items()}
        for name in COLUMNS:
            changed[name] = changed[name][indices]
        return type(self)(**changed)

    def iterate_bytes(self) -> Iterator[bytes | memoryview]:
        """All bytes that are learned from, for who wants to know them again."""
        arrays = [self.ts_ms, *(label for _, label in sorted(self.labels.items()))]
        for _, block in sorted(self.blocks.items()):
            arrays += [block.numbers, block.ids]
        for array in arrays:
            yield np.ascontiguousarray(array).view(np.uint8).data

    def with_labels(self, labels: Mapping[str, npt.NDArray[Any]]) -> Self:
        """The same examples with other labels (N,) of the same tasks."""
        changed: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        return type(self)(**changed | {"labels": labels})

    def has_label(self, task: Task) -> npt.NDArray[np.bool_]:
        """Which rows have the task's label."""
        return has_label(self.labels[task.name])

    def for_tasks(self, tasks: Sequence[Task]) -> Self:
        """The rows that have a label of these tasks, which are some of this set's."""
        names = {task.name for task in tasks}
        changed: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        changed["tasks"] = tuple(tasks)
        for name in ("labels", "known_ms", "classes"):
            changed[name] = {task: column for task, column in changed[name].items() if task in names}
        narrowed = type(self)(**changed)
        return narrowed.take(has_any_label(narrowed.labels, len(self)))

    def to_rows(self) -> list[Example]:
        """The same examples as they travel."""
        present = {group: ~is_empty(block) for group, block in self.blocks.items()}
        packed = {group: pack_rows(block) for group, block in self.blocks.items()}
        labelled = {task.name: self.has_label(task) for task in self.tasks}
        return [
            self._to_row(
                row,
                {g: blocks[row] for g, blocks in packed.items() if present[g][row]},
                [t for t in labelled if labelled[t][row]],
            )
            for row in range(len(self))
        ]

    def _to_row(self, row: int, groups: dict[str, PackedBlock], names: list[str]) -> Example:
        return Example(
            example_id=self.example_id[row],
            revision=int(self.revision[row]),
            event_id=self.event_id[row],
            user_id=self.user_id[row],
            ts_ms=int(self.ts_ms[row]),
            model_version="",
            features=self.features.digest,
            groups=groups,
            labels={name: self._label_at(name, row) for name in names},
            known_ms={name: int(self.known_ms[name][row]) for name in names},
            item_id=self.item_id[row],
        )

    def _label_at(self, task: str, row: int) -> float | str:
        value = self.labels[task][row]
        return self.classes[task][value] if task in self.classes else float(value)


COLUMNS = ("example_id", "revision", "event_id", "user_id", "item_id", "ts_ms")


def is_empty(block: Block) -> npt.NDArray[np.bool_]:
    """Which rows (N,) of a block say nothing."""
    empty: npt.NDArray[np.bool_] = np.isnan(block.numbers).all(1) & (block.ids == 0).all(1)
    return empty


def from_rows(
    rows: Sequence[Example], features: FeatureSet, tasks: Sequence[Task], classes: Classes | None = None
) -> Examples:
    """Examples of rows as they travel; raises `BadData` for features of another set, or labels outside their kind."""
    for row in rows:
        if row.features != features.digest:
            raise BadData(f"Examples should have the features {features.digest}. Found {row.features} in one.")
    columns = {name: to_array([getattr(row, name) for row in rows], name) for name in COLUMNS}
    return build_examples(
        features,
        tasks,
        {group: stack_blocks(group, rows, features) for group in GROUPS},
        columns,
        {task.name: [row.labels.get(task.name) for row in rows] for task in tasks},
        {task.name: np.array([row.known_ms.get(task.name, 0) for row in rows], np.int64) for task in tasks},
        classes=classes,
    )


def to_array(values: Sequence[Any], column: str) -> npt.NDArray[Any]:
    return np.array(values, np.int64 if column in ("revision", "ts_ms") else np.object_)


def stack_blocks(group: str, rows: Sequence[Example], features: FeatureSet) -> Block:
    """One block of the rows' own blocks of a group, empty where they have none."""
    block, (n, m) = features.empty_block(group, len(rows)), features.widths(group)
    present = [number for number, row in enumerate(rows) if group in row.groups]
    packed = [rows[number].groups[group] for number in present]
    try:
        block.numbers[present] = np.frombuffer(b"".join(p.numbers for p in packed), "<f4").reshape(len(present), n)
        block.ids[present] = np.frombuffer(b"".join(p.ids for p in packed), "<i8").reshape(len(present), m)
    except ValueError as error:
        raise BadData(f"A block of `{group}` should be one row of {n} numbers and {m} ids. Found: {error}") from error
    return block


def build_examples(
    features: FeatureSet,
    tasks: Sequence[Task],
    blocks: Mapping[str, Block],
    columns: Mapping[str, npt.NDArray[Any]],
    labels: Mapping[str, Sequence[RawLabel]],
    known_ms: Mapping[str, Integers],
    *,
    classes: Classes | None = None,
) -> Examples:
    """Examples of columns of N rows: labels are checked, the newest revision of each id is kept, time orders them.

    `classes`: those of some tasks, in their order; of the others they are what the labels name.
    """
    known_classes = classes or {}
    classes = {
        t.name: known_classes.get(t.name) or collect_classes(labels[t.name]) for t in tasks if t.kind == "multiclass"
    }
    coded = {task.name: encode_labels(task, labels[task.name], classes) for task in tasks}
    examples = Examples(
        features=features,
        tasks=tuple(tasks),
        classes=classes,
        blocks=blocks,
        labels=coded,
        known_ms=known_ms,
        **columns,
    )
    newest_rows = select_newest(examples.example_id, examples.revision)
    newest_rows = newest_rows[has_any_label(coded, len(examples))[newest_rows]]
    return examples.take(newest_rows[np.argsort(examples.ts_ms[newest_rows], kind="stable")])


def select_newest(example_id: Strings, revision: Integers) -> Integers:
    """The row of the newest revision of each id, in the order of ids; of equal revisions the last row counts."""
    row_by_id: dict[str, int] = {}
    for row in np.argsort(revision, kind="stable").tolist():
        row_by_id[example_id[row]] = row
    return np.array([row_by_id[ident] for ident in sorted(row_by_id)], np.int64)


def merge_examples(parts: Sequence[Examples]) -> Examples:
    """One set of examples of the same features, tasks and classes: the newest revision of each id, ordered by time.

    Of equal revisions the last one counts.
    """
    revisions = concatenate_examples(parts)
    rows = select_newest(revisions.example_id, revisions.revision)
    return revisions.take(rows[np.argsort(revisions.ts_ms[rows], kind="stable")])


def concatenate_examples(parts: Sequence[Examples]) -> Examples:
    """All rows of examples of the same features, tasks and classes, part by part."""
    first = parts[0]
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS}
    return Examples(
        features=first.features,
        tasks=first.tasks,
        classes=first.classes,
        blocks={group: concatenate_blocks([part.blocks[group] for part in parts]) for group in first.blocks},
        labels={task.name: np.concatenate([part.labels[task.name] for part in parts]) for task in first.tasks},
        known_ms={task.name: np.concatenate([part.known_ms[task.name] for part in parts]) for task in first.tasks},
        **columns,
    )


def concatenate_blocks(blocks: Sequence[Block]) -> Block:
    return Block(np.concatenate([b.numbers for b in blocks]), np.concatenate([b.ids for b in blocks]))
