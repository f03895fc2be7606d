from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from msgspec.structs import replace

from contract.errors import BadData
from contract.features.declaration import FeatureSet
from contract.features.packing import PackedBlock
from contract.messages import Example, read_example, to_msgpack
from tests.model.small import CATEGORY, CLASSES, CLICK, DEMAND, FEATURES, FRAUD, TASKS
from tests.training.examples import make_examples, make_rows
from training.data.examples import Examples, from_rows
from training.data.parquet import read_examples, read_files, write_examples


def assert_equal(left: Examples, right: Examples) -> None:
    for name in ("example_id", "revision", "event_id", "user_id", "item_id", "ts_ms"):
        assert getattr(left, name).tolist() == getattr(right, name).tolist()
    for group, block in left.blocks.items():
        np.testing.assert_array_equal(block.numbers, right.blocks[group].numbers)
        np.testing.assert_array_equal(block.ids, right.blocks[group].ids)
    for task in left.tasks:
        np.testing.assert_array_equal(left.labels[task.name], right.labels[task.name])
        np.testing.assert_array_equal(left.known_ms[task.name], right.known_ms[task.name])
    assert left.classes == right.classes


def add_label(row: Example, **labels: float | str) -> Example:
    return replace(row, labels=labels, known_ms=dict.fromkeys(labels, row.ts_ms))


def test_examples_survive_encoding_as_messages(seed: int) -> None:
    examples = make_examples(60, seed)

    decoded = [read_example(to_msgpack(row)) for row in examples.to_rows()]

    assert_equal(from_rows(decoded, FEATURES, TASKS, CLASSES), examples)


def test_examples_survive_a_parquet_file(tmp_path: Path, seed: int) -> None:
    examples = make_examples(60, seed)

    write_examples(tmp_path / "e.parquet", examples)

    assert_equal(read_examples(tmp_path / "e.parquet", FEATURES, TASKS, CLASSES), examples)
    assert [path.name for path in tmp_path.iterdir()] == ["e.parquet"]


def test_a_parquet_file_has_the_documented_columns(tmp_path: Path, seed: int) -> None:
    write_examples(tmp_path / "e.parquet", make_examples(20, seed))

    names = set(pq.read_schema(tmp_path / "e.parquet").names)

    assert names >= {"example_id", "revision", "event_id", "user_id", "item_id", "ts_ms", "user.numbers", "item.ids"}
    assert names >= {"label.click", "known_ms.click", "label.category"}


def test_groups_that_a_row_lacks_are_empty_blocks(seed: int) -> None:
    examples = make_examples(60, seed)

    orders = examples.take(examples.has_label(TASKS[2]))

    assert np.isnan(orders.blocks["item"].numbers).all()
    assert not orders.blocks["item"].ids.any()
    assert orders.blocks["user"].ids.any()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_the_newest_revision_of_an_example_counts_in_any_order(order: tuple[int, ...], seed: int) -> None:
    row = make_rows(1, seed)[0]
    revisions = [replace(add_label(row, click=1.0, purchase=float(n == 2)), revision=n) for n in range(3)]

    examples = from_rows([revisions[n] for n in order], FEATURES, TASKS)

    assert examples.revision.tolist() == [2]
    assert examples.labels["purchase"].tolist() == [1]


def test_examples_are_sorted_by_time(seed: int) -> None:
    rows = make_rows(30, seed)

    examples = from_rows(rows[::-1], FEATURES, TASKS)

    assert examples.ts_ms.tolist() == sorted(examples.ts_ms.tolist())


def test_an_unknown_label_is_nan_and_an_unknown_class_is_minus_1(seed: int) -> None:
    row = make_rows(1, seed)[0]
    rows = [replace(add_label(row, category=name), example_id=name) for name in ("tea", "unseen")]

    examples = from_rows([*rows, add_label(row, click=1.0)], FEATURES, TASKS, CLASSES)

    assert len(examples) == 2  # an example whose only label is an unknown class is dropped
    assert np.isnan(examples.labels["fraud"]).all()
    assert sorted(examples.labels["category"].tolist()) == [-1, 2]


@pytest.mark.parametrize(
    ("task", "value", "expected"),
    [
        ("click", 0.5, "0 or 1"),
        ("click", "maybe", "0 or 1, true or false, yes or no, or the task's name"),
        ("click", float("nan"), "0 or 1"),
        ("relevance", 2.0, "a number from 0 to 1"),
        ("relevance", "often", "a number from 0 to 1"),
        ("relevance", -0.1, "a number from 0 to 1"),
        ("category", True, "the name of a class"),
        ("category", "", "the name of a class"),
        ("demand", float("inf"), "a number up to 1e"),
        ("demand", 1e19, "a number up to 1e"),
    ],
)
def test_a_label_that_does_not_fit_its_task_is_rejected(
    task: str, value: float | str, expected: str, seed: int
) -> None:
    row = add_label(make_rows(1, seed)[0], **{task: value})

    with pytest.raises(BadData, match=f"A label of `{task}` .* should be {expected}"):
        from_rows([row], FEATURES, (*TASKS, DEMAND))


@pytest.mark.parametrize(
    ("task", "value"), [("click", 1.0), ("click", 0.0), ("relevance", 0.3), ("category", "tea"), ("demand", -7.5)]
)
def test_a_label_that_fits_its_task_is_accepted(task: str, value: float | str, seed: int) -> None:
    row = add_label(make_rows(1, seed)[0], **{task: value})

    assert len(from_rows([row], FEATURES, (*TASKS, DEMAND))) == 1


def test_features_of_another_digest_are_rejected(tmp_path: Path, seed: int) -> None:
    examples, fewer = make_examples(10, seed), FeatureSet(FEATURES.features[1:])
    write_examples(tmp_path / "e.parquet", examples)

    with pytest.raises(BadData, match=f"should have the features {fewer.digest}. Found {FEATURES.digest}"):
        from_rows(examples.to_rows(), fewer, TASKS)
    with pytest.raises(BadData, match=f"should have the features {fewer.digest}. Found {FEATURES.digest}"):
        read_examples(tmp_path / "e.parquet", fewer, TASKS)


def test_a_block_of_another_width_is_rejected(seed: int) -> None:
    row = make_rows(1, seed)[0]
    truncated = replace(row, groups=row.groups | {"user": PackedBlock(1, b"\0" * 4, b"\0" * 8)})

    with pytest.raises(BadData, match="A block of `user` should be one row of 2 numbers and 8 ids"):
        from_rows([truncated], FEATURES, TASKS)


def rewrite_file(path: Path, change: Any) -> Path:
    table = pq.read_table(path)
    pq.write_table(change(table), path)
    return path


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda table: table.slice(0, 0), "should hold examples with a label"),
        (lambda table: table.drop_columns(["ts_ms"]), r"should have the columns \['ts_ms'\]"),
        (lambda table: table.replace_schema_metadata(None), "Found no digest"),
        (
            lambda table: table.set_column(
                table.column_names.index("user.numbers"), "user.numbers", pa.array([[1.0]] * len(table))
            ),
            "Lists of user.numbers should have 2 values",
        ),
    ],
)
def test_a_file_with_wrong_columns_is_rejected(tmp_path: Path, change: Any, sentence: str, seed: int) -> None:
    write_examples(tmp_path / "e.parquet", make_examples(10, seed))

    with pytest.raises(BadData, match=sentence):
        read_examples(rewrite_file(tmp_path / "e.parquet", change), FEATURES, TASKS)


@pytest.mark.parametrize("content", [b"", b"PAR1 and then something else"])
def test_a_file_that_is_not_parquet_is_rejected(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "e.parquet").write_bytes(content)

    with pytest.raises(BadData, match="should be Parquet"):
        read_examples(tmp_path / "e.parquet", FEATURES, TASKS)
    with pytest.raises(BadData, match="should be Parquet"):
        read_examples(tmp_path / "none.parquet", FEATURES, TASKS)


def test_rows_without_a_label_of_the_tasks_are_left_out(seed: int) -> None:
    examples = make_examples(60, seed)

    fraud = examples.for_tasks((TASKS[2],))

    assert 0 < len(fraud) == int(examples.has_label(TASKS[2]).sum())
    assert set(fraud.labels) == {"fraud"}


def test_files_of_different_tasks_form_one_set(tmp_path: Path) -> None:
    examples = make_examples(80, 3)
    parts = {task: examples.for_tasks([task]) for task in (FRAUD, CATEGORY)}
    for task, part in parts.items():
        write_examples(tmp_path / f"{task.name}.parquet", part)

    actual = read_files([tmp_path / "fraud.parquet", tmp_path / "category.parquet"], FEATURES, TASKS, CLASSES)

    assert len(actual) == sum(len(part) for part in parts.values())
    for task, part in parts.items():
        assert actual.has_label(task).sum() == len(part)
        own_rows = actual.for_tasks([task])
        np.testing.assert_array_equal(own_rows.example_id, part.example_id)
        np.testing.assert_array_equal(own_rows.labels[task.name], part.labels[task.name])
        np.testing.assert_array_equal(own_rows.blocks["item"].ids, part.blocks["item"].ids)
    assert not actual.has_label(CLICK).any()


def test_files_with_incompatible_columns_are_rejected(tmp_path: Path) -> None:
    write_examples(tmp_path / "good.parquet", make_examples(20, 3))
    table = pq.read_table(tmp_path / "good.parquet")
    pq.write_table(table.set_column(0, "example_id", pa.array([[1]] * len(table))), tmp_path / "bad.parquet")
    pq.write_table(pa.table({"x": [1.0]}), tmp_path / "plain.parquet")

    with pytest.raises(BadData, match="should have columns of the same types"):
        read_files([tmp_path / "good.parquet", tmp_path / "bad.parquet"], FEATURES, TASKS)
    with pytest.raises(BadData, match=r"plain.parquet should have the columns"):
        read_files([tmp_path / "good.parquet", tmp_path / "plain.parquet"], FEATURES, TASKS)
