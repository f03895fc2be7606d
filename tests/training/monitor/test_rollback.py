from pathlib import Path
from typing import NamedTuple

import pytest
from msgspec.structs import replace

from contract.bundle import current_version, read_manifest, set_current
from contract.errors import BadBundle
from model.checkpoint import Checkpoint
from model.network import Network
from tests.model.small import FRAUD, PURCHASE, SHAPE
from tests.training.examples import PLAN, make_examples
from tests.training.served_rows import (
    MONITOR_CONFIG,
    make_checkpoint,
    observe_rows,
    perturb,
    publish_checkpoint,
    serve_rows,
)
from training.monitor.alpha_spending import AlphaSpending
from training.monitor.rollback import (
    Withdrawal,
    find_rollback_target,
    find_unfinished,
    finish_withdrawal,
    list_withdrawals,
    withdraw,
    write_withdrawal,
)
from training.monitor.rollback_test import ALL_TASKS, RollbackTest, RollbackTestResult, predict_rows
from training.trainer.fit import fit
from training.trainer.learner import predict

SEEDS = 20


@pytest.fixture(scope="module")
def parent() -> Checkpoint:
    fitted = fit(make_examples(1_000, 3), SHAPE, PLAN.model_copy(update={"epochs": 6}), lambda epoch: None)
    return make_checkpoint(fitted.network, 10**12)


class BundlePair(NamedTuple):
    """A bundle that serves, and its parent."""

    bundles: Path
    version: str
    parent: str
    network: Network


def publish_pair(folder: Path, parent: Checkpoint, scale: float) -> BundlePair:
    """The parent was published, then the same network shaken by so much."""
    network = perturb(parent, scale)
    first = publish_checkpoint(folder, parent)
    return BundlePair(folder, publish_checkpoint(folder, make_checkpoint(network, 10**12 + 1, first)), first, network)


@pytest.fixture(scope="module")
def healthy(parent: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> BundlePair:
    return publish_pair(tmp_path_factory.mktemp("healthy"), parent, 0.01)


@pytest.fixture
def harmful(parent: Checkpoint, tmp_path: Path) -> BundlePair:
    return publish_pair(tmp_path, parent, 1.5)


def run_rollback_test(pair: BundlePair, parent: Checkpoint, folder: Path, rows: int, seed: int) -> RollbackTestResult:
    judge = RollbackTest(
        network=parent.build_network(),
        alpha_spending=AlphaSpending(bundles=folder, version=pair.version, rows_min=MONITOR_CONFIG.rows_min),
        config=MONITOR_CONFIG,
    )
    return judge.run(observe_rows(serve_rows(pair.network, pair.version, rows, seed)))


def test_a_harmful_model_is_worse_than_its_parent_by_what_it_said(
    harmful: BundlePair, parent: Checkpoint, tmp_path: Path
) -> None:
    verdict = run_rollback_test(harmful, parent, tmp_path, 1_200, 40)

    assert verdict.reasons
    assert verdict.losses[ALL_TASKS].gain_lost > MONITOR_CONFIG.score_margin
    assert any(reason.startswith("click: a bundle should lose at most 0.05") for reason in verdict.reasons)


def test_a_healthy_model_is_not_worse_on_any_of_many_draws(
    healthy: BundlePair, parent: Checkpoint, tmp_path: Path
) -> None:
    verdicts = []
    for seed in range(SEEDS):
        (tmp_path / f"{seed}").mkdir()
        verdicts.append(run_rollback_test(healthy, parent, tmp_path / f"{seed}", 500, 100 + seed))

    assert all("click" in verdict.losses for verdict in verdicts)
    assert [verdict.reasons for verdict in verdicts] == [()] * SEEDS


def test_too_few_rows_are_not_looked_at(harmful: BundlePair, parent: Checkpoint, tmp_path: Path) -> None:
    verdict = run_rollback_test(harmful, parent, tmp_path, MONITOR_CONFIG.rows_min - 1, 40)

    assert verdict == RollbackTestResult(harmful.version, {})
    assert not (tmp_path / "watched.json").exists() or "click" not in (tmp_path / "watched.json").read_text()


def test_rows_of_other_features_or_of_another_version_are_not_compared(harmful: BundlePair, parent: Checkpoint) -> None:
    rows = serve_rows(harmful.network, harmful.version, 600, 40)
    judge = RollbackTest(
        network=parent.build_network(),
        alpha_spending=AlphaSpending(
            bundles=harmful.bundles, version=harmful.version, rows_min=MONITOR_CONFIG.rows_min
        ),
        config=MONITOR_CONFIG,
    )

    for others in ({"features": "another"}, {"model_version": "another"}):
        assert judge.run(observe_rows([replace(row, **others) for row in rows])).losses == {}


@pytest.mark.parametrize("task", [PURCHASE, FRAUD], ids=lambda task: task.name)
def test_the_parent_is_asked_as_a_worker_would_ask_it(parent: Checkpoint, task: object) -> None:
    # Given examples whose negatives were not thinned out, so that what is said in life and of a sample is the same
    network, examples = parent.build_network(), make_examples(300, 5)
    rows = examples.to_rows()
    has = examples.has_label(task)  # type: ignore[arg-type]

    actual = predict_rows(network, task, [row for row, has_it in zip(rows, has, strict=True) if has_it])  # type: ignore[arg-type]

    assert actual == pytest.approx(predict(network, examples)[task.name][has], abs=1e-6)  # type: ignore[attr-defined]


def test_a_bundle_is_taken_back_and_why_is_kept(harmful: BundlePair) -> None:
    done = withdraw(harmful.bundles, harmful.version, harmful.parent, ["click: worse"])

    assert current_version(harmful.bundles) == harmful.parent
    assert list_withdrawals(harmful.bundles) == [done]
    assert done is not None
    assert (done.version, done.to, done.reasons, done.is_done) == (
        harmful.version,
        harmful.parent,
        ("click: worse",),
        True,
    )


def test_a_bundle_that_was_gone_back_to_stays_until_a_new_one_comes(harmful: BundlePair, parent: Checkpoint) -> None:
    # Given a bundle with a parent of its own, which was gone back to
    newer = publish_checkpoint(
        harmful.bundles, make_checkpoint(perturb(parent, 1.5, seed=2), 10**12 + 2, harmful.version)
    )
    withdraw(harmful.bundles, newer, harmful.version, ["worse"])
    assert current_version(harmful.bundles) == harmful.version

    # Then it is not left for its parent
    with pytest.raises(BadBundle, match="stays until a new one comes"):
        find_rollback_target(harmful.bundles, harmful.version)

    # And a new bundle may be taken back again
    newest = publish_checkpoint(
        harmful.bundles, make_checkpoint(perturb(parent, 1.5, seed=3), 10**12 + 3, harmful.version)
    )
    assert find_rollback_target(harmful.bundles, newest) == harmful.version


def test_nothing_is_gone_back_to_that_was_taken_back_itself(harmful: BundlePair, parent: Checkpoint) -> None:
    write_withdrawal(
        harmful.bundles, Withdrawal(version=harmful.version, to="x", reasons=(), decided_ms=1, is_done=True)
    )
    newer = publish_checkpoint(
        harmful.bundles, make_checkpoint(perturb(parent, 0.1, seed=2), 10**12 + 2, harmful.version)
    )

    with pytest.raises(BadBundle, match="none to go back to"):
        find_rollback_target(harmful.bundles, newer)
    with pytest.raises(BadBundle, match="somebody has pointed to it again"):
        find_rollback_target(harmful.bundles, harmful.version)
    with pytest.raises(BadBundle, match="no parent"):
        find_rollback_target(harmful.bundles, read_manifest(harmful.bundles, harmful.version).parent or "")


def test_a_decision_that_a_dead_watcher_left_is_carried_out_and_one_of_the_past_is_forgotten(
    harmful: BundlePair,
) -> None:
    decision = Withdrawal(version=harmful.version, to=harmful.parent, reasons=("worse",), decided_ms=1)
    write_withdrawal(harmful.bundles, decision)

    assert find_unfinished(harmful.bundles, harmful.version) == decision
    assert finish_withdrawal(harmful.bundles, decision) == replace(decision, is_done=True)
    assert current_version(harmful.bundles) == harmful.parent
    assert find_unfinished(harmful.bundles, harmful.version) is None

    # And where another bundle serves by now, nothing is done
    assert finish_withdrawal(harmful.bundles, decision) is None
    assert current_version(harmful.bundles) == harmful.parent


def test_a_parent_that_is_not_whole_is_not_gone_back_to_and_nothing_is_left_behind(harmful: BundlePair) -> None:
    (harmful.bundles / harmful.parent / "decide.onnx").write_bytes(b"cut")

    with pytest.raises(BadBundle, match="should have the digest"):
        withdraw(harmful.bundles, harmful.version, harmful.parent, ["worse"])

    assert current_version(harmful.bundles) == harmful.version
    assert list_withdrawals(harmful.bundles) == []


def test_what_cannot_be_read_is_no_withdrawal(tmp_path: Path) -> None:
    (tmp_path / "withdrawn").mkdir()
    (tmp_path / "withdrawn" / "v.json").write_text("junk")

    assert list_withdrawals(tmp_path) == []


def test_another_bundle_that_was_published_meanwhile_is_left_alone(harmful: BundlePair) -> None:
    set_current(harmful.bundles, harmful.parent)

    assert withdraw(harmful.bundles, harmful.version, harmful.parent, ["worse"]) is None
    assert current_version(harmful.bundles) == harmful.parent
    assert list_withdrawals(harmful.bundles) == []
