"""Examples in memory: features as served and the labels known so far, as arrays.

`training.data.parquet` reads and writes them as Parquet, `training.feedback.feedback_reader` reads the feedback topic.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np

from contract.arrays import Array, Integers, Mask, Strings
from contract.errors import BadData
from contract.features.declaration import GROUPS, Block, FeatureSet
from contract.features.packing import PackedBlock, pack_rows
from contract.messages import Example
from contract.tasks import Task
from training.data.labels import Classes, collect_classes, encode_labels, has_any_label, has_label, read_label

COLUMNS = ("example_id", "revision", "event_id", "user_id", "item_id", "ts_ms", "place")
INTEGER_COLUMNS = ("revision", "ts_ms", "place")
NO_PLACE = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """N examples sorted by time, each with a label of some task, in the newest revision of its id.

    `blocks` has every group; a group that a row lacks is empty in it. `labels` (N,) are float32, NaN where unknown; of
    multiclass tasks int64, the index in `classes`, -1 where unknown. `known_ms` (N,): when the label came, or 0.
    `place` (N,): of an item on its list, from 0; `NO_PLACE` for others.
    """

    features: FeatureSet
    tasks: tuple[Task, ...]
    classes: Classes
    blocks: Mapping[str, Block]
    labels: Mapping[str, Array]
    known_ms: Mapping[str, Integers]
    example_id: Strings
    revision: Integers
    event_id: Strings
    user_id: Strings
    item_id: Strings
    ts_ms: Integers
    place: Integers

    def __len__(self) -> int:
        return len(self.ts_ms)

    def take(self, rows: Integers | Mask) -> Self:
        """Some of the examples, by number or by mask."""
        indices = np.arange(len(self))[rows]
        changed = self._to_dict()
        changed["blocks"] = {group: block.take(indices) for group, block in self.blocks.items()}
        for name in ("labels", "known_ms"):
            changed[name] = {task: column[indices] for task, column in changed[name].items()}
        for name in COLUMNS:
            changed[name] = changed[name][indices]
        return type(self)(**changed)

    def iterate_bytes(self) -> Iterator[bytes | memoryview]:
        """All bytes that training reads, for a digest."""
        arrays = [self.ts_ms, self.place, *(label for _, label in sorted(self.labels.items()))]
        for _, block in sorted(self.blocks.items()):
            arrays += [block.numbers, block.ids]
        for array in arrays:
            yield np.ascontiguousarray(array).view(np.uint8).data

    def with_labels(self, labels: Mapping[str, Array]) -> Self:
        """The same examples with other labels (N,) of the same tasks."""
        return type(self)(**self._to_dict() | {"labels": labels})

    def has_label(self, task: Task) -> Mask:
        """Which rows have the task's label."""
        return has_label(self.labels[task.name])

    def for_tasks(self, tasks: Sequence[Task]) -> Self:
        """The rows that have a label of these tasks, a subset of the present ones."""
        names = {task.name for task in tasks}
        changed = self._to_dict()
        changed["tasks"] = tuple(tasks)
        for name in ("labels", "known_ms", "classes"):
            changed[name] = {task: column for task, column in changed[name].items() if task in names}
        narrowed = type(self)(**changed)
        return narrowed.take(has_any_label(narrowed.labels, len(self)))

    def to_rows(self) -> list[Example]:
        """The same examples as messages of the feedback topic."""
        present = {group: ~is_empty(block) for group, block in self.blocks.items()}
        packed = {group: pack_rows(block) for group, block in self.blocks.items()}
        labelled = {task.name: self.has_label(task) for task in self.tasks}
        return [
            self._to_row(
                row,
                {group: blocks[row] for group, blocks in packed.items() if present[group][row]},
                [name for name, mask in labelled.items() if mask[row]],
            )
            for row in range(len(self))
        ]

    def _to_dict(self) -> dict[str, Any]:
        """The fields by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

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
            place=int(self.place[row]) if self.place[row] >= 0 else None,
        )

    def _label_at(self, task: str, row: int) -> float | str:
        value = self.labels[task][row]
        return self.classes[task][value] if task in self.classes else float(value)


def is_empty(block: Block) -> Mask:
    """Which rows (N,) of a block have neither numbers nor ids."""
    empty: Mask = np.isnan(block.numbers).all(1) & (block.ids == 0).all(1)
    return empty


def from_rows(
    rows: Sequence[Example], features: FeatureSet, tasks: Sequence[Task], classes: Classes | None = None
) -> Examples:
    """Examples from messages; raises `BadData` for another feature set and for labels that do not fit their task."""
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


def to_array(values: Sequence[Any], column: str) -> Array:
    if column == "place":
        return np.array([NO_PLACE if value is None else value for value in values], np.int64)
    return np.array(values, np.int64 if column in INTEGER_COLUMNS else np.object_)


def stack_blocks(group: str, rows: Sequence[Example], features: FeatureSet) -> Block:
    """The rows' blocks of a group as one block, empty where a row has none."""
    block, (n, m) = features.empty_block(group, len(rows)), features.widths(group)
    present = [index for index, row in enumerate(rows) if group in row.groups]
    packed = [rows[index].groups[group] for index in present]
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
    columns: Mapping[str, Array],
    labels: Mapping[str, Sequence[object]],
    known_ms: Mapping[str, Integers],
    *,
    classes: Classes | None = None,
) -> Examples:
    """Examples from columns of N rows: reads labels, keeps the newest revision of each id, sorts by time.

    `classes`: the ordered classes of some tasks; for other tasks they are collected from the labels.
    """
    known_classes = classes or {}
    values = {task.name: [read_label(task, value) for value in labels[task.name]] for task in tasks}
    classes = {
        t.name: known_classes.get(t.name) or collect_classes(values[t.name]) for t in tasks if t.kind == "multiclass"
    }
    coded = {task.name: encode_labels(task, values[task.name], classes) for task in tasks}
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
    """The row of the newest revision of each id, sorted by id; of equal revisions the last row wins."""
    row_by_id: dict[str, int] = {}
    for row in np.argsort(revision, kind="stable").tolist():
        row_by_id[example_id[row]] = row
    return np.array([row for _, row in sorted(row_by_id.items())], np.int64)


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
