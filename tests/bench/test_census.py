"""The census bench: what it cuts, what it keeps, and what it says of rows that miss their aims."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from bench.quality.census.command import AIMS, CensusBench, CensusRow, CensusTrial, find_missed_aims, main, to_matrix
from bench.quality.census.dataset import TASKS, DataSplit, declare_features, mask_labels, split_examples
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


def count_calls(calls: list[int]) -> object:
    def fake_try(part: DataSplit, seed: int) -> CensusTrial:
        calls.append(seed)
        return CensusTrial(auc={"income": 0.5 + seed / 10, "married": 0.9}, parameters=3, seconds=2.0)

    return fake_try


def test_without_its_data_it_says_so_and_stops(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(tmp_path)]) == 1
    assert "SHOPSTREAM_DATA" in capsys.readouterr().err


def test_nothing_of_education_or_weight_is_a_feature(seed: int) -> None:
    assert [feature.name for feature in make_people(10, seed).features.features] == ["age", "sex"]


def test_a_fifth_judges_and_nobody_is_on_both_sides(seed: int) -> None:
    part = split_examples(make_people(100, seed), seed)

    assert (len(part.train), len(part.test)) == (80, 20)
    assert not set(part.train.example_id) & set(part.test.example_id)
    assert set(split_examples(make_people(100, seed), seed + 1).test.example_id) != set(part.test.example_id)


def test_masking_hides_labels_of_each_task_by_itself(seed: int) -> None:
    actual = mask_labels(make_people(1_000, seed), 0.5, seed)

    unknown = {task: np.isnan(label) for task, label in actual.labels.items()}
    assert 700 < len(actual) < 800
    assert all(0.2 < where.mean() < 0.45 for where in unknown.values())
    assert not (unknown["income"] & unknown["married"]).any()


def test_a_category_that_was_not_met_is_unknown_to_trees(seed: int) -> None:
    some = make_people(10, seed)
    ids = np.unique(some.blocks["user"].ids)

    actual = to_matrix(some, [ids[:1]])

    assert actual.shape == (10, 2)
    np.testing.assert_array_equal(np.isnan(actual[:, 1]), some.blocks["user"].ids[:, 0] != ids[0])


def test_what_is_measured_is_not_measured_again_unless_the_code_changed(tmp_path: Path, seed: int) -> None:
    kept, calls = tmp_path / "kept.json", list[int]()
    first = CensusBench(examples=make_people(50, seed), path=kept).measure_row("one", count_calls(calls), 2)  # type: ignore[arg-type]

    again = CensusBench(examples=make_people(50, seed), path=kept)
    second = again.measure_row("one", count_calls(calls), 3)  # type: ignore[arg-type]

    assert calls == [0, 1, 2]
    assert (first.income, second.income) == ((0.55, 0.07071), (0.6, 0.1))
    kept.write_bytes(kept.read_bytes().replace(again.cache.code.encode(), b"other code"))
    CensusBench(examples=make_people(50, seed), path=kept).measure_row("one", count_calls(calls), 1)  # type: ignore[arg-type]
    assert calls == [0, 1, 2, 0]


def test_a_row_below_its_aim_and_a_mask_that_costs_much_are_told() -> None:
    good = CensusRow(income=(0.95, 0.0), married=(0.995, 0.0), parameters=1, seconds=1)
    bad = CensusRow(income=(AIMS["income"] - 0.001, 0.0), married=(0.9895, 0.0), parameters=1, seconds=1)

    assert not list(find_missed_aims({"ours": good, "mmoe": good, "mmoe_masked": good}))
    assert len(list(find_missed_aims({"ours": bad}))) == 2
    assert len(list(find_missed_aims({"mmoe": good, "mmoe_masked": bad}))) == 2
