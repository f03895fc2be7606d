import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.quality.offpolicy.command import ESTIMATORS, main
from bench.quality.offpolicy.open_bandit import FEATURES, FILE, read_impressions, transfer
from bench.quality.offpolicy.worlds import COVERED, UNCOVERED, BanditWorld, draw_choices, find_truth
from training.offpolicy.evaluation import evaluate_target
from training.stats.overlap import OverlapLimits

ROWS = 6_000


@pytest.fixture
def data(tmp_path: Path, seed: int) -> Path:
    """Impressions of two policies over four items in one campaign, in the form of Open Bandit."""
    rng = np.random.default_rng(seed)
    policy = np.repeat(["random", "bts"], ROWS // 2)
    choices = {"random": np.full(4, 0.25), "bts": np.array([0.1, 0.2, 0.3, 0.4])}
    item = np.array([rng.choice(4, p=choices[name]) for name in policy.tolist()])
    columns = {
        "policy": policy,
        "campaign": np.full(ROWS, "all"),
        "position": rng.integers(1, 4, ROWS),
        "item_id": item,
        "click": (rng.random(ROWS) < 0.1 * (item + 1)).astype(np.int64),
        "propensity_score": np.array([choices[name][n] for name, n in zip(policy.tolist(), item, strict=True)]),
    } | {feature: rng.choice(["x", "y"], ROWS) for feature in FEATURES}
    (tmp_path / FILE).parent.mkdir()
    pq.write_table(pa.table(columns), tmp_path / FILE)
    return tmp_path


def test_without_its_data_the_bench_says_so_and_stops(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(tmp_path)]) == 2
    assert "The data should be at" in capsys.readouterr().err


def test_a_small_run_has_a_row_for_each_world_and_policy(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--json", "--scale", "0", "--data", str(data)])

    printed = json.loads(capsys.readouterr().out)
    assert 0 < printed["coverage"] <= 1
    assert printed["refused_without_overlap"] == 1
    simulated = [(row["world"], row["estimator"]) for row in printed["rows"] if "world" in row]
    assert simulated == [(world, estimator) for world in COVERED for estimator in ESTIMATORS]
    logged = {(row["policy"], row["campaign"]): row for row in printed["rows"] if "data" in row}
    assert logged.keys() == {(policy, campaign) for policy in ("random", "bts") for campaign in ("each", "all")}
    for (policy, _), row in logged.items():
        truth = {"random": 0.25, "bts": 0.3}[policy]
        assert row["truth"][0] == pytest.approx(truth, abs=0.04)
        assert row["estimates"]["snips"][0] == pytest.approx(truth, abs=0.05)


def test_the_uniform_policy_has_no_choice_that_the_logs_of_all_items_lack(data: Path) -> None:
    impressions = read_impressions(data / FILE)

    for policy in ("random", "bts"):
        assert evaluate_target(transfer(policy, impressions, "all"), OverlapLimits()).refused == ()


def test_the_truth_is_what_the_target_earns_when_it_serves(seed: int) -> None:
    world = BanditWorld(1)
    rng = np.random.default_rng(seed)
    policies = world._policies(rng.normal(size=(100_000, 5)))
    rewards = policies.reward[np.arange(100_000), draw_choices(policies.target, rng)]

    assert find_truth(world, seed, 100_000) == pytest.approx(rewards.mean(), abs=0.01)


@pytest.mark.parametrize("name", UNCOVERED)
def test_a_world_without_overlap_is_refused(name: str, seed: int) -> None:
    logs = UNCOVERED[name](0).draw(np.random.default_rng(seed))

    assert evaluate_target(logs, OverlapLimits()).refused
