"""Out-of-core examples are split, sampled and trained on like examples in memory."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.errors import BadData
from tests.model.small import CLASSES, FEATURES, SHAPE, TASKS
from tests.training.examples import PLAN, make_examples
from training.data import streaming
from training.data.examples import Examples
from training.data.parquet import DIGEST_KEY, count_rows, find_files, write_examples
from training.data.split import split_by_time
from training.data.streaming import ExampleStream
from training.trainer.fit import fit
from training.trainer.learner import predict

EXAMPLES = make_examples(1_200, 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples in three files of several row groups each, not sorted by time."""
    folder = tmp_path_factory.mktemp("stream")
    order = np.random.default_rng(1).permutation(len(EXAMPLES))
    for number, rows in enumerate(np.array_split(order, 3)):
        path = folder / f"part{number}.parquet"
        write_examples(path, EXAMPLES.take(rows))
        table = pq.read_table(path)
        pq.write_table(table, path, row_group_size=90)
    return folder


@pytest.fixture
def stream(folder: Path, monkeypatch: pytest.MonkeyPatch) -> ExampleStream:
    monkeypatch.setattr(streaming, "CHUNK_ROWS", 160)
    return ExampleStream(paths=find_files([folder]), features=FEATURES, tasks=TASKS, classes=CLASSES)


def example_ids(*parts: Examples) -> list[str]:
    return sorted(np.concatenate([part.example_id for part in parts]).tolist())


def test_every_row_comes_once_in_small_shuffled_chunks(stream: ExampleStream) -> None:
    all_rows = np.ones(len(stream), np.bool_)

    first, second = (list(stream.iterate_chunks(all_rows, np.random.default_rng(seed))) for seed in (1, 2))

    assert example_ids(*first) == example_ids(*second) == example_ids(EXAMPLES)
    assert max(len(chunk) for chunk in first) <= 160
    has_other_sizes = [len(chunk) for chunk in first] != [len(chunk) for chunk in second]
    assert has_other_sizes or example_ids(first[0]) != example_ids(second[0])


def test_the_same_rows_are_held_out_as_in_memory(stream: ExampleStream) -> None:
    is_held_out = stream.select_held_out(0.25)

    split = split_by_time(EXAMPLES, 0.25)
    assert example_ids(*stream.iterate_chunks(is_held_out)) == example_ids(EXAMPLES.take(split.validation))
    assert example_ids(*stream.iterate_chunks(~is_held_out)) == example_ids(EXAMPLES.take(split.training))


def test_rows_of_a_stream_equal_rows_in_memory(stream: ExampleStream) -> None:
    actual = stream.sample(np.ones(len(stream), np.bool_), len(stream))

    assert actual.classes == EXAMPLES.classes
    order = np.argsort(actual.example_id)[np.argsort(np.argsort(EXAMPLES.example_id))]
    sorted_rows = actual.take(order)
    assert sorted_rows.example_id.tolist() == EXAMPLES.example_id.tolist()
    for group, block in EXAMPLES.blocks.items():
        np.testing.assert_array_equal(sorted_rows.blocks[group].numbers, block.numbers)
        np.testing.assert_array_equal(sorted_rows.blocks[group].ids, block.ids)
    for task, label in EXAMPLES.labels.items():
        np.testing.assert_array_equal(sorted_rows.labels[task], label)


def test_a_sample_is_bounded_and_spread_over_all_rows(stream: ExampleStream) -> None:
    rows = stream.select_held_out(0.5)

    actual = stream.sample(rows, 100)

    assert len(actual) == 100
    assert set(example_ids(actual)) <= set(example_ids(*stream.iterate_chunks(rows)))
    assert len(stream.sample(rows, 10**6)) == rows.sum()


def test_training_on_a_stream_scores_like_training_in_memory(stream: ExampleStream) -> None:
    config = PLAN.model_copy(update={"epochs": 8})

    streamed = fit(stream, SHAPE, config, lambda epoch: None)
    in_memory = fit(EXAMPLES, SHAPE, config, lambda epoch: None)

    assert streamed.left_out == in_memory.left_out == {}
    assert abs(streamed.score - in_memory.score) < 0.15
    assert streamed.score > 0.1
    assert predict(streamed.network, EXAMPLES).keys() == predict(in_memory.network, EXAMPLES).keys()


def test_rows_without_any_label_are_left_out(tmp_path: Path) -> None:
    write_examples(tmp_path / "half.parquet", EXAMPLES)
    table = pq.read_table(tmp_path / "half.parquet")
    unknown = table.slice(0, 600)
    for index, name in enumerate(table.column_names):
        if name.startswith("label."):
            unknown = unknown.set_column(index, name, pa.nulls(600, table.schema.field(name).type))
    pq.write_table(pa.concat_tables([unknown, table.slice(600)]), tmp_path / "half.parquet", row_group_size=100)

    stream = ExampleStream(paths=[tmp_path / "half.parquet"], features=FEATURES, tasks=TASKS, classes=CLASSES)

    assert example_ids(*stream.iterate_chunks(np.ones(len(stream), np.bool_))) == example_ids(
        EXAMPLES.take(np.arange(600, len(EXAMPLES)))
    )


def test_a_file_of_other_features_is_rejected_when_opened(folder: Path, tmp_path: Path) -> None:
    table = pq.read_table(folder / "part0.parquet")
    pq.write_table(table.replace_schema_metadata({DIGEST_KEY: b"other"}), tmp_path / "other.parquet")

    with pytest.raises(BadData, match=r"other\.parquet should have the features .* Found other"):
        ExampleStream(paths=[folder / "part1.parquet", tmp_path / "other.parquet"], features=FEATURES, tasks=TASKS)


def test_unreadable_files_and_empty_folders_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "no.parquet").write_bytes(b"none")
    with pytest.raises(BadData, match=r"no\.parquet should be Parquet"):
        count_rows(tmp_path / "no.parquet")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadData, match=r"empty should hold \*.parquet files"):
        find_files([tmp_path / "empty"])
