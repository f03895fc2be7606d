from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from bench.quality.drift import FEATURES, SHIFTS, Population, count_false_alarms, draw_batch, measure_delay, to_scored
from contract.features.declaration import Feature, FeatureSet
from contract.messages import ScoredRow, pack
from tests.model import small
from training.monitor.config import MonitorConfig
from training.monitor.drift import BlockComparison, DriftDetector
from training.monitor.drift_columns import DriftColumn, extract_columns, has_declared_widths, strip_version
from training.monitor.drift_reference import DriftReferences
from training.monitor.two_sample_tests import compare_column, fisher_p_value
from training.monitor.user_sample import UserSample, sample_row

BLOCK = 200


def draw_rows(seed: int, count: int, begin: int = 0) -> list[ScoredRow]:
    rng = np.random.default_rng(seed)
    return list(to_scored(draw_batch(Population.draw(np.random.default_rng(1)), count, rng), begin))


def make_drift(**watching: float) -> DriftDetector:
    asked = {"block": BLOCK, "block_s": 0.0, "events_per_alarm": 10_000} | watching
    return DriftDetector(features=FEATURES, config=MonitorConfig(**asked))  # type: ignore[arg-type]


def compare_rows(drift: DriftDetector, rows: list[ScoredRow]) -> list[BlockComparison]:
    return [comparison for row in rows if (comparison := drift.observe(row)) is not None]


def test_alarms_are_no_more_frequent_than_was_asked_for_where_nothing_changes() -> None:
    # Given a shop in which people's rows are alike and nothing drifts
    alarms, blocks = count_false_alarms(40_000, 10_000, seed=3)

    # Then there were four alarms to be expected, and hardly more than nine
    assert blocks > 40
    assert alarms <= 9


def test_chances_are_even_where_nothing_differs_with_ties_gaps_and_rare_values_too() -> None:
    # Given pairs of samples of one source
    rng, actual = np.random.default_rng(7), dict[str, list[float]]()
    for _ in range(400):
        tied, gaps = rng.poisson(0.4, (2, 150)).astype(float), rng.normal(0, 1, (2, 150))
        gaps[rng.random(gaps.shape) < 0.05] = np.nan
        bins = rng.choice(3, (2, 150), p=[0.9, 0.07, 0.03])
        for name, (one, other) in {"tied": tied, "gaps": gaps, "bins": bins.astype(np.int64)}.items():
            for asked, p in compare_column(name, DriftColumn(one), DriftColumn(other), rng):
                actual.setdefault(asked, []).append(p)

    # Then a tenth of the chances are below a tenth, as far as so many can tell
    assert set(actual) == {"tied", "gaps", "gaps missing", "bins"}
    for name, of in actual.items():
        assert np.mean(np.array(of) < 0.1) == pytest.approx(0.1, abs=0.045), name
        assert np.mean(of) == pytest.approx(0.5, abs=0.06), name


@pytest.mark.parametrize("name", SHIFTS)
def test_a_shift_raises_the_alarm_of_its_own_column(name: str) -> None:
    column, shift = SHIFTS[name]

    events = measure_delay(column, shift, 16_000, seed=2)

    assert events is not None
    assert events < 3_000


def test_the_same_rows_again_raise_nothing() -> None:
    rows = draw_rows(1, 4_000)

    again = compare_rows(make_drift(events_per_alarm=100), rows + rows)

    assert again
    assert sum(len(one.alarms) for one in again) <= 2


def test_one_shift_is_one_alarm_and_then_the_usual() -> None:
    # Given rows before and after a shift of what is spent
    before, after = draw_rows(1, 2_000), draw_rows(2, 4_000, 2_000)
    tenfold = [replace(row, groups=row.groups | {"order": multiply_amount(row)}) for row in after]

    # When they are compared block by block
    actual = [[alarm.column for alarm in one.alarms] for one in compare_rows(make_drift(), before + tenfold)]

    # Then the shift is told once
    assert sum("amount" in columns for columns in actual) in (1, 2)  # a block may lie on both sides
    assert "amount" not in actual[-1]


def multiply_amount(row: ScoredRow) -> object:
    block = row.groups["order"].unpack()
    return pack(type(block)(block.numbers * 10, block.ids))


def test_scores_are_compared_within_one_version_alone() -> None:
    # Given a version that says other things than the one before
    first = draw_rows(1, 3_000)
    second = [
        replace(r, model_version="2", scores={"fraud": (0.9 + r.scores["fraud"][0] / 20,)}) for r in draw_rows(2, 3_000)
    ]

    actual = compare_rows(make_drift(), first + second)

    assert {alarm.column for one in actual for alarm in one.alarms} <= {"amount", "spent", "payment"}
    # And within the second version a change is told
    changed = [replace(row, scores={"fraud": (0.5,)}) for row in second]
    drift = make_drift()
    compare_rows(drift, first + second)
    assert any(alarm.column == "score.fraud" for one in compare_rows(drift, changed) for alarm in one.alarms)


def test_a_block_has_one_row_of_each_person_and_people_of_chance() -> None:
    people = UserSample(size=50, seed=1)
    rows = draw_rows(1, 3_000)
    for row in rows:
        people.add(row)

    drawn = [one.order for one in people]
    other = UserSample(size=50, seed=2)
    for row in rows:
        other.add(row)

    assert len(people) == len(drawn) == len(set(drawn)) == 50
    assert people.rows == 3_000
    assert people.span_ms == 2_999_000
    assert not set(drawn) & {one.order for one in other}


def test_a_block_waits_for_its_time_as_well_as_for_its_people() -> None:
    rows = draw_rows(1, 3_000)  # fifty minutes

    assert compare_rows(make_drift(block_s=3_000.0), rows) == []
    assert compare_rows(make_drift(block_s=60.0), rows)


def test_of_a_list_one_item_is_taken_with_its_own_score() -> None:
    items = small.draw_block("item", 3, np.random.default_rng(1))
    user = small.draw_block("user", 1, np.random.default_rng(2))
    row = replace(
        draw_rows(1, 1)[0],
        kind="recommendation",
        items=("a", "b", "c"),
        groups={"item": pack(items), "user": pack(user)},
        scores={"click": (0.1, 0.2, 0.3), "purchase": (0.01, 0.02, 0.03)},
        features=small.FEATURES.digest,
    )

    for order in range(3):
        one = sample_row(row, order)

        assert one.groups["item"] == pack(items.take([order]))
        assert one.groups["user"] == pack(user)
        assert one.scores == {"click": pytest.approx(0.1 * (order + 1)), "purchase": pytest.approx(0.01 * (order + 1))}
        assert has_declared_widths(one, small.FEATURES)
        assert {strip_version(name) for name in extract_columns([one], small.FEATURES)} >= {
            "price",
            "title.length",
            "score.click",
        }


def test_what_the_clock_decides_is_not_looked_at() -> None:
    context = pack(small.draw_block("context", 1, np.random.default_rng(1)))
    row = replace(draw_rows(1, 1)[0], groups={"context": context})
    hourly = FeatureSet([Feature("hour", "context", "number", "event.hour")])
    block = pack(hourly.empty_block("context", 1))

    assert "hour" not in extract_columns([sample_row(replace(row, groups={"context": block}), 0)], hourly)


def test_rows_of_another_width_are_left_out_of_a_block() -> None:
    rows = draw_rows(1, 2_000)
    cut = replace(
        rows[0],
        event_id="cut",
        user_id="cut",
        groups={"order": pack(small.draw_block("item", 1, np.random.default_rng(1)))},
    )

    assert not has_declared_widths(sample_row(cut, 0), FEATURES)
    assert compare_rows(make_drift(), [cut, *rows])


def test_a_column_without_a_difference_to_be_found_asks_nothing() -> None:
    rng, same = np.random.default_rng(1), DriftColumn(np.full(100, 3.0))
    empty = DriftColumn(np.full(100, np.nan))

    assert list(compare_column("x", same, same, rng)) == []
    assert list(compare_column("x", empty, empty, rng)) == []
    assert [name for name, _ in compare_column("x", same, empty, rng)] == ["x missing"]
    assert fisher_p_value(np.ones(5, np.bool_), np.ones(5, np.bool_), rng) is None


def test_a_watcher_that_starts_again_goes_on_with_the_reference_that_was_kept(tmp_path: Path) -> None:
    # Given a watcher that has a reference, and dies
    first = DriftDetector(features=FEATURES, config=MonitorConfig(block=BLOCK, block_s=0), folder=tmp_path)
    compare_rows(first, draw_rows(1, 2_000))

    # When another one takes its place, after amounts have become tenfold
    tenfold = [replace(row, groups=row.groups | {"order": multiply_amount(row)}) for row in draw_rows(2, 1_000, 2_000)]
    second = DriftDetector(features=FEATURES, config=MonitorConfig(block=BLOCK, block_s=0), folder=tmp_path)

    # Then its first block raises the alarm
    assert "amount" in {alarm.column for alarm in compare_rows(second, tenfold)[0].alarms}


@pytest.mark.parametrize("content", [b"junk", b"", None])
def test_a_reference_that_cannot_be_read_or_is_of_other_features_is_none(tmp_path: Path, content: bytes | None) -> None:
    kept = DriftReferences(digest="a", folder=tmp_path)
    kept.write("order", {"amount": DriftColumn(np.arange(3.0)), "score.fraud@1 ": DriftColumn(np.arange(3))})
    assert set(DriftReferences(digest="a", folder=tmp_path).read("order") or ()) == {"amount", "score.fraud@1 "}
    if content is not None:
        (tmp_path / "order.npz").write_bytes(content)

    assert DriftReferences(digest="a" if content is not None else "b", folder=tmp_path).read("order") is None


def test_a_reference_that_cannot_be_kept_is_used_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where a folder should be")
    references = DriftReferences(digest="a", folder=tmp_path / "taken")

    references.write("order", {"amount": DriftColumn(np.arange(3.0))})

    assert references.read("order") is not None
