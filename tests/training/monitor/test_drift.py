"""Drift detection: false alarms as configured, and alarms of real shifts."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from msgspec.structs import replace

from bench.quality.drift import FEATURES, SHIFTS, Population, count_false_alarms, draw_batch, measure_delay, to_scored
from contract.errors import BadBundle
from contract.events.model import Erasure
from contract.features.declaration import Feature, FeatureSet
from contract.features.packing import pack
from contract.hashing import hash_text, hash_texts
from contract.messages import ScoredRow
from contract.profiles.erasures import Erasures
from contract.settings.monitor import MonitorConfig
from contract.units import DAY_MS
from tests.model import small
from training.monitor.drift import BlockComparison, DriftDetector
from training.monitor.drift_columns import DriftColumn, RowOwners, extract_columns, has_declared_widths, strip_version
from training.monitor.drift_reference import DriftReferences
from training.monitor.two_sample_tests import compare_column, fisher_p_value
from training.monitor.user_sample import UserSample, sample_row

BLOCK = 200


def draw_rows(seed: int, count: int, begin: int = 0) -> list[ScoredRow]:
    rng = np.random.default_rng(seed)
    return list(to_scored(draw_batch(Population.draw(np.random.default_rng(1)), count, rng), begin))


def make_detector(**config: float) -> DriftDetector:
    fields = {"block": BLOCK, "block_s": 0.0, "events_per_alarm": 10_000} | config
    return DriftDetector(features=FEATURES, config=MonitorConfig(**fields))  # type: ignore[arg-type]


def compare_rows(detector: DriftDetector, rows: list[ScoredRow]) -> list[BlockComparison]:
    return [comparison for row in rows if (comparison := detector.observe(row)) is not None]


def test_without_drift_alarms_are_as_rare_as_configured() -> None:
    # given a shop in which the rows of a user are alike and nothing drifts
    alarms, blocks = count_false_alarms(40_000, 10_000, seed=3)

    # then four alarms are expected, and more than nine are unlikely
    assert blocks > 40
    assert alarms <= 9


def test_p_values_are_uniform_with_ties_missing_and_rare_values() -> None:
    # given pairs of samples from the same distribution
    rng, actual = np.random.default_rng(7), dict[str, list[float]]()
    for _ in range(400):
        tied, gaps = rng.poisson(0.4, (2, 150)).astype(float), rng.normal(0, 1, (2, 150))
        gaps[rng.random(gaps.shape) < 0.05] = np.nan
        bins = rng.choice(3, (2, 150), p=[0.9, 0.07, 0.03])
        for name, (left, right) in {"tied": tied, "gaps": gaps, "bins": bins.astype(np.int64)}.items():
            for test, p in compare_column(name, make_column(left), make_column(right), rng):
                actual.setdefault(test, []).append(p)

    # then their p-values are uniform, within the noise of the sample
    assert set(actual) == {"tied", "gaps", "gaps missing", "bins"}
    for name, p_values in actual.items():
        assert np.mean(np.array(p_values) < 0.1) == pytest.approx(0.1, abs=0.045), name
        assert np.mean(p_values) == pytest.approx(0.5, abs=0.06), name


@pytest.mark.parametrize("name", SHIFTS)
def test_a_shift_raises_the_alarm_of_its_own_column(name: str) -> None:
    column, shift = SHIFTS[name]

    events = measure_delay(column, shift, 16_000, seed=2)

    assert events is not None
    assert events < 3_000


def test_the_same_rows_again_raise_hardly_any_alarm() -> None:
    rows = draw_rows(1, 4_000)

    comparisons = compare_rows(make_detector(events_per_alarm=100), rows + rows)

    assert comparisons
    assert sum(len(comparison.alarms) for comparison in comparisons) <= 2


def test_one_shift_raises_one_alarm_and_becomes_the_reference() -> None:
    # given rows before and after a shift of the amounts
    before, after = draw_rows(1, 2_000), draw_rows(2, 4_000, 2_000)
    tenfold = [replace(row, groups=row.groups | {"order": multiply_amount(row)}) for row in after]

    # when they are compared block by block
    comparisons = compare_rows(make_detector(), before + tenfold)
    actual = [[alarm.column for alarm in comparison.alarms] for comparison in comparisons]

    # then the shift raises one alarm
    assert sum("amount" in columns for columns in actual) in (1, 2)  # a block may span the shift
    assert "amount" not in actual[-1]


def multiply_amount(row: ScoredRow) -> object:
    block = row.groups["order"].unpack()
    return pack(type(block)(block.numbers * 10, block.ids))


def test_scores_are_compared_within_one_model_version() -> None:
    # given a version whose scores differ from those of the one before
    first = draw_rows(1, 3_000)
    second = [
        replace(r, model_version="2", scores={"fraud": (0.9 + r.scores["fraud"][0] / 20,)}) for r in draw_rows(2, 3_000)
    ]

    # when both are compared
    detector = make_detector()
    alarms = [alarm for comparison in compare_rows(detector, first + second) for alarm in comparison.alarms]

    # then the change of version raises no alarm of scores
    assert {alarm.column for alarm in alarms} <= {"amount", "spent", "payment"}

    # and a change within the second version does
    changed = [replace(row, ts_ms=row.ts_ms + 999 * DAY_MS, scores={"fraud": (0.5,)}) for row in second]
    alarms = [alarm for comparison in compare_rows(detector, changed) for alarm in comparison.alarms]
    assert "score.fraud" in {alarm.column for alarm in alarms}


def test_a_block_has_one_row_of_each_sampled_user() -> None:
    sample, other = UserSample(size=50, seed=1), UserSample(size=50, seed=2)

    for row in draw_rows(1, 3_000):
        sample.add(row)
        other.add(row)

    orders = [row.order for row in sample]
    assert len(sample) == len(orders) == len(set(orders)) == 50
    assert sample.rows == 3_000
    assert sample.span_ms == 2_999_000
    assert not set(orders) & {row.order for row in other}


def test_a_block_needs_its_time_span_as_well_as_its_users() -> None:
    rows = draw_rows(1, 3_000)  # fifty minutes

    assert compare_rows(make_detector(block_s=3_000.0), rows) == []
    assert compare_rows(make_detector(block_s=60.0), rows)


def test_one_item_of_a_list_is_sampled_with_its_own_score() -> None:
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
        sampled = sample_row(row, order)

        assert sampled.groups["item"] == pack(items.take([order]))
        assert sampled.groups["user"] == pack(user)
        assert sampled.scores == {
            "click": pytest.approx(0.1 * (order + 1)),
            "purchase": pytest.approx(0.01 * (order + 1)),
        }
        assert has_declared_widths(sampled, small.FEATURES)
        assert {strip_version(name) for name in extract_columns([sampled], small.FEATURES)} >= {
            "price",
            "title.length",
            "score.click",
        }


def test_features_of_the_clock_are_not_compared() -> None:
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
    assert compare_rows(make_detector(), [cut, *rows])


def make_column(values: npt.NDArray[Any]) -> DriftColumn:
    """A column with a row of each user u0, u1, ..., at the times 0, 1, ..."""
    return DriftColumn(values, RowOwners(hash_texts(f"user:u{n}" for n in range(len(values))), np.arange(len(values))))


def test_a_constant_or_empty_column_has_no_test() -> None:
    rng, same = np.random.default_rng(1), make_column(np.full(100, 3.0))
    empty = make_column(np.full(100, np.nan))

    assert list(compare_column("x", same, same, rng)) == []
    assert list(compare_column("x", empty, empty, rng)) == []
    assert [name for name, _ in compare_column("x", same, empty, rng)] == ["x missing"]
    assert fisher_p_value(np.ones(5, np.bool_), np.ones(5, np.bool_), rng) is None


def test_a_restarted_monitor_uses_the_stored_reference(tmp_path: Path) -> None:
    # given a monitor that has stored a reference
    first = DriftDetector(features=FEATURES, config=MonitorConfig(block=BLOCK, block_s=0), folder=tmp_path)
    compare_rows(first, draw_rows(1, 2_000))

    # when another one continues, after amounts became tenfold
    tenfold = [replace(row, groups=row.groups | {"order": multiply_amount(row)}) for row in draw_rows(2, 1_000, 2_000)]
    second = DriftDetector(features=FEATURES, config=MonitorConfig(block=BLOCK, block_s=0), folder=tmp_path)

    # then its first block raises the alarm
    assert "amount" in {alarm.column for alarm in compare_rows(second, tenfold)[0].alarms}


@pytest.mark.parametrize("content", [b"junk", b"", None])
def test_an_unreadable_or_foreign_reference_is_ignored(tmp_path: Path, content: bytes | None) -> None:
    references = DriftReferences(digest="a", folder=tmp_path)
    references.write("order", {"amount": make_column(np.arange(3.0)), "score.fraud@1 ": make_column(np.arange(3))})
    assert set(DriftReferences(digest="a", folder=tmp_path).read("order") or ()) == {"amount", "score.fraud@1 "}
    if content is not None:
        (tmp_path / "order.npz").write_bytes(content)

    assert DriftReferences(digest="a" if content is not None else "b", folder=tmp_path).read("order") is None


def test_a_reference_that_cannot_be_stored_is_still_used(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where a folder should be")
    references = DriftReferences(digest="a", folder=tmp_path / "taken")

    references.write("order", {"amount": make_column(np.arange(3.0))})

    assert references.read("order") is not None


def test_a_reference_loses_the_covered_rows_here_and_on_the_disk(tmp_path: Path) -> None:
    # given a reference of the users u0 to u4, at the times 0 to 4
    references = DriftReferences(digest="a", folder=tmp_path)
    column = make_column(np.arange(5.0))
    references.write("order", {"amount": column, "other": make_column(np.arange(5.0))})
    (tmp_path / ".order.123").write_bytes(b"left by a crashed monitor")
    # when u2 is erased, and u3 up to a time before its row
    references.erase(make_erasures(("u2", 2), ("u3", 2)))
    # then
    for actual in (references, DriftReferences(digest="a", folder=tmp_path)):
        columns = actual.read("order") or {}
        assert set(columns) == {"amount", "other"}
        assert all(c.values.tolist() == [0, 1, 3, 4] for c in columns.values())
        assert all(hash_text("user:u2") not in c.owners.users for c in columns.values())
    assert [path.name for path in tmp_path.iterdir()] == ["order.npz"]


@pytest.mark.parametrize("digest", ["a", "b"])
def test_a_reference_without_owners_or_of_other_features_is_deleted_by_an_erasure(tmp_path: Path, digest: str) -> None:
    np.savez(tmp_path / "order.npz", digest=np.array(digest), amount=np.arange(3.0))

    references = DriftReferences(digest="a", folder=tmp_path)
    references.erase(make_erasures(("u2", 2)))

    assert references.read("order") is None
    assert not list(tmp_path.iterdir())


def test_a_reference_that_cannot_be_rewritten_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    references = DriftReferences(digest="a", folder=tmp_path)
    references.write("order", {"amount": make_column(np.arange(5.0))})

    def fail(path: Path, content: bytes) -> None:
        raise BadBundle("order.npz should be written whole. Found: a full disk")

    monkeypatch.setattr("training.monitor.drift_reference.replace_durably", fail)
    with pytest.raises(BadBundle, match="full disk"):
        references.erase(make_erasures(("u2", 2)))


def test_an_open_block_loses_the_rows_of_an_erased_user() -> None:
    rows = draw_rows(1, 100)
    detector = DriftDetector(features=FEATURES, config=MonitorConfig(block=BLOCK, block_s=0))
    for row in rows[: BLOCK // 2]:
        detector.observe(row)
    (block,) = detector._open_blocks.values()
    user = rows[0].user_id
    assert user in {row.user_id for row in block}

    detector.erase(make_erasures((user, max(row.ts_ms for row in rows))))

    assert user not in {row.user_id for row in block}


def make_erasures(*users: tuple[str, int]) -> Erasures:
    return Erasures(Erasure(event_id=user, user_id=user, ts_ms=ts_ms) for user, ts_ms in users)
