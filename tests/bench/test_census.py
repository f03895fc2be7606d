"""The census bench: its splits, its kept results, and its missed aims."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from bench.quality.census.command import (
    AIMS,
    CensusBench,
    CensusRow,
    CensusTrial,
    Method,
    find_missed_aims,
    main,
    to_matrix,
)
from bench.quality.census.dataset import TASKS, DataSplit, declare_features, mask_labels, split_examples
from bench.results.cache import ResultCache
from training.data.examples import Examples
from training.data.tabular import examples_from_table


def make_people(rows: int, seed: int) -> Examples:
    rng = np.random.default_rng(seed)
    columns = {
        "age": rng.integers(0, 90, rows),
        "sex": rng.choice(["f", "m"], rows),
        "education": rng.choice(["some", "none"], rows),
        "instance_weight": rng.random(rows),
        "label.income": rng.integers(0, 2, rows).astype(float),
        "label.married": rng.integers(0, 2, rows).astype(float),
    }
    table = pa.table(columns)
    return examples_from_table(table, declare_features(table), TASKS)


def make_counting_method(calls: list[int]) -> Method:
    def method(split: DataSplit, seed: int) -> CensusTrial:
        calls.append(seed)
        return CensusTrial(auc={"income": 0.5 + seed / 10, "married": 0.9}, parameters=3, seconds=2.0)

    return method


def test_missing_data_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(tmp_path)]) == 1
    assert "SHOPSTREAM_DATA" in capsys.readouterr().err


def test_education_and_weight_are_not_features(seed: int) -> None:
    assert [feature.name for feature in make_people(10, seed).features.features] == ["age", "sex"]


def test_a_fifth_is_the_test_set_and_disjoint_from_the_rest(seed: int) -> None:
    split = split_examples(make_people(100, seed), seed)

    assert (len(split.train), len(split.test)) == (80, 20)
    assert not set(split.train.example_id) & set(split.test.example_id)
    assert set(split_examples(make_people(100, seed), seed + 1).test.example_id) != set(split.test.example_id)


def test_labels_of_each_task_are_masked_independently(seed: int) -> None:
    actual = mask_labels(make_people(1_000, seed), 0.5, seed)

    masked = {task: np.isnan(label) for task, label in actual.labels.items()}
    assert 700 < len(actual) < 800
    assert all(0.2 < mask.mean() < 0.45 for mask in masked.values())
    assert not (masked["income"] & masked["married"]).any()


def test_an_out_of_vocabulary_category_is_nan_for_trees(seed: int) -> None:
    people = make_people(10, seed)
    ids = np.unique(people.blocks["user"].ids)

    actual = to_matrix(people, [ids[:1]])

    assert actual.shape == (10, 2)
    np.testing.assert_array_equal(np.isnan(actual[:, 1]), people.blocks["user"].ids[:, 0] != ids[0])


def test_a_seed_is_measured_again_only_after_the_code_changed(tmp_path: Path, seed: int) -> None:
    # given
    examples, calls = make_people(50, seed), list[int]()

    def measure(seeds: int, digest: str) -> CensusRow:
        cache = ResultCache(path=tmp_path / "kept.json", digest=digest, result_type=CensusTrial)
        return CensusBench(examples=examples, cache=cache).measure_row("one", make_counting_method(calls), seeds)

    # when
    first, second = measure(2, "this code"), measure(3, "this code")

    # then
    assert calls == [0, 1, 2]
    assert (first.income, second.income) == ((0.55, 0.07071), (0.6, 0.1))
    measure(1, "other code")
    assert calls == [0, 1, 2, 0]


def test_a_row_below_its_aim_and_a_costly_mask_are_missed_aims() -> None:
    good = CensusRow(income=(0.95, 0.0), married=(0.995, 0.0), parameters=1, seconds=1)
    bad = CensusRow(income=(AIMS["income"] - 0.001, 0.0), married=(0.9895, 0.0), parameters=1, seconds=1)

    assert not list(find_missed_aims({"ours": good, "mmoe": good, "mmoe_masked": good}))
    assert len(list(find_missed_aims({"ours": bad}))) == 2
    assert len(list(find_missed_aims({"mmoe": good, "mmoe_masked": bad}))) == 2
