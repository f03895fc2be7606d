"""The loss balancing bench: ranks from trials, the advised default, and kept results."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from bench.quality.census.dataset import DataSplit
from bench.quality.loss_balancing import command
from bench.quality.loss_balancing.command import BalanceBench, BalanceDataset, fit_and_evaluate, main
from bench.quality.loss_balancing.ranks import (
    BalanceRow,
    BalanceTrial,
    TrialKey,
    choose_default,
    compute_p_value,
    compute_ranks,
    rank_methods,
)
from bench.results.cache import ResultCache
from tests.model.small import SHAPE
from tests.training.examples import PLAN, make_examples

NAMES = ["static", "dwa", "upgrad"]


def make_trial(**gain: float) -> BalanceTrial:
    return BalanceTrial(gain=gain, step_s=0.01, seconds=1.0)


def make_trials(gains: dict[str, list[float]], data: str = "shop") -> dict[TrialKey, BalanceTrial]:
    """A task `a` with the given gains by seed, and a task `b` that every method learns equally well."""
    return {
        (seed, data, name): make_trial(a=gain, b=0.5)
        for name, values in gains.items()
        for seed, gain in enumerate(values)
    }


def test_the_best_has_rank_1_and_equal_ones_share_a_rank() -> None:
    actual = compute_ranks(make_trials({"static": [0.1], "dwa": [0.3], "upgrad": [0.2]}), "shop", NAMES, 1)

    assert actual.tolist() == [[(3 + 2) / 2, (1 + 2) / 2, (2 + 2) / 2]]


def test_a_task_that_one_method_did_not_learn_is_not_ranked() -> None:
    trials = make_trials({"static": [0.1], "dwa": [0.3], "upgrad": [0.2]})
    trials[0, "shop", "dwa"] = make_trial(b=0.5)

    assert compute_ranks(trials, "shop", NAMES, 1).tolist() == [[2, 2, 2]]


def test_each_dataset_weighs_the_same_whatever_its_number_of_tasks() -> None:
    trials = {(0, "census", name): make_trial(a=gain) for name, gain in (("static", 0.2), ("dwa", 0.1))}
    trials |= {(0, "shop", name): make_trial(a=g, b=g, c=g, d=g) for name, g in (("static", 0.1), ("dwa", 0.2))}

    rows = rank_methods(trials, ["census", "shop"], ["static", "dwa"], 1)

    assert {name: row.mean_rank for name, row in rows.items()} == {"static": 1.5, "dwa": 1.5}
    assert rows["static"].rank == {"census": 1, "shop": 2}


def test_rows_are_ordered_by_rank_with_mean_gains_and_step_times() -> None:
    rows = rank_methods(
        make_trials({"static": [0.1, 0.2], "dwa": [0.3, 0.5], "upgrad": [0.0, 0.1]}), ["shop"], NAMES, 2
    )

    assert list(rows) == ["dwa", "static", "upgrad"]
    assert rows["dwa"].gain == {"shop": {"a": 0.4, "b": 0.5}}
    assert rows["dwa"].step_s == {"shop": 0.01}
    assert rows["static"].p is None


def make_row(p: float | None) -> BalanceRow:
    return BalanceRow(mean_rank=1, p=p, rank={}, gain={}, step_s={})


@pytest.mark.parametrize(("p", "default"), [(0.001, "dwa"), (0.0249, "dwa"), (0.025, "static"), (None, "static")])
def test_the_default_changes_only_for_a_significant_difference(p: float | None, default: str) -> None:
    assert choose_default({"dwa": make_row(p), "static": make_row(None), "upgrad": make_row(0.001)}) == default
    assert choose_default({"static": make_row(None), "dwa": make_row(0.001)}) == "static"


def test_the_p_value_is_of_a_paired_test_and_undefined_for_one_seed() -> None:
    assert compute_p_value(np.array([1.0, 1.1, 0.9, 1.0, 1.0])) == pytest.approx(0.0, abs=1e-3)
    assert compute_p_value(np.array([1.0, -1.0, 0.5, -0.5])) == 1
    assert compute_p_value(np.array([1.0])) is None
    assert compute_p_value(np.zeros(5)) is None


@dataclass
class FakeMeasurement:
    """Replaces a training that would take minutes; records its calls and interrupts the fifth."""

    calls: list[tuple[str, int]] = field(default_factory=list)

    def __call__(self, source: BalanceDataset, name: str, seed: int) -> BalanceTrial:
        if len(self.calls) == 4:
            raise KeyboardInterrupt
        self.calls.append((name, seed))
        return make_trial(a=seed + len(name))


def test_an_interrupted_bench_continues_until_the_code_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = BalanceDataset(lambda seed: DataSplit(make_examples(1, seed), make_examples(1, seed)), SHAPE, PLAN)

    def run(digest: str) -> list[tuple[str, int]]:
        measuring = FakeMeasurement()
        monkeypatch.setattr(command, "fit_and_evaluate", measuring)
        try:
            cache = ResultCache(path=tmp_path / "tries.json", digest=digest, result_type=BalanceTrial)
            BalanceBench(datasets={"shop": source}, cache=cache).measure_rows(NAMES, 2)
        except KeyboardInterrupt:
            return [*measuring.calls, ("ended", 0)]
        return measuring.calls

    assert run("this") == [*((name, 0) for name in NAMES), ("static", 1), ("ended", 0)]
    assert run("this") == [("dwa", 1), ("upgrad", 1)]
    assert run("this") == []
    assert len(run("other")) == 5


def test_a_trial_depends_on_its_method_and_seed(seed: int) -> None:
    examples = make_examples(160, seed)
    source = BalanceDataset(
        lambda _: DataSplit(examples, make_examples(80, seed + 1)), SHAPE, PLAN.model_copy(update={"epochs": 1})
    )

    static, again, upgrad = (fit_and_evaluate(source, name, 1) for name in ("static", "static", "upgrad"))

    assert static.gain == again.gain != upgrad.gain
    assert "click" in static.gain
    assert 0 < static.step_s < static.seconds


def test_missing_data_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(tmp_path)]) == 1
    assert "SHOPSTREAM_DATA" in capsys.readouterr().err
