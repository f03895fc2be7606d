"""The rollback test of a serving bundle, and the rollback to its parent."""

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
    """A serving bundle and its parent."""

    bundles: Path
    version: str
    parent: str
    network: Network


def publish_pair(folder: Path, parent: Checkpoint, scale: float) -> BundlePair:
    """Publish the parent, then its network with noise of this scale."""
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
    rollback_test = RollbackTest(
        network=parent.build_network(),
        alpha_spending=AlphaSpending(bundles=folder, version=pair.version, rows_min=MONITOR_CONFIG.rows_min),
        config=MONITOR_CONFIG,
    )
    return rollback_test.run(observe_rows(serve_rows(pair.network, pair.version, rows, seed)))


def test_a_harmful_model_is_found_worse_by_its_served_scores(
    harmful: BundlePair, parent: Checkpoint, tmp_path: Path
) -> None:
    result = run_rollback_test(harmful, parent, tmp_path, 1_200, 40)

    assert result.reasons
    assert result.losses[ALL_TASKS].gain_lost > MONITOR_CONFIG.score_margin
    assert any(reason.startswith("click: a bundle should lose at most 0.05") for reason in result.reasons)


def test_a_healthy_model_is_not_found_worse_on_any_of_many_draws(
    healthy: BundlePair, parent: Checkpoint, tmp_path: Path
) -> None:
    results = []
    for seed in range(SEEDS):
        (tmp_path / f"{seed}").mkdir()
        results.append(run_rollback_test(healthy, parent, tmp_path / f"{seed}", 500, 100 + seed))

    assert all("click" in result.losses for result in results)
    assert [result.reasons for result in results] == [()] * SEEDS


def test_too_few_rows_are_not_tested(harmful: BundlePair, parent: Checkpoint, tmp_path: Path) -> None:
    result = run_rollback_test(harmful, parent, tmp_path, MONITOR_CONFIG.rows_min - 1, 40)

    assert result == RollbackTestResult(harmful.version, {})
    assert not (tmp_path / "watched.json").exists() or "click" not in (tmp_path / "watched.json").read_text()


def test_rows_of_other_features_or_another_version_are_not_compared(harmful: BundlePair, parent: Checkpoint) -> None:
    rows = serve_rows(harmful.network, harmful.version, 600, 40)
    rollback_test = RollbackTest(
        network=parent.build_network(),
        alpha_spending=AlphaSpending(
            bundles=harmful.bundles, version=harmful.version, rows_min=MONITOR_CONFIG.rows_min
        ),
        config=MONITOR_CONFIG,
    )

    for changed in ({"features": "another"}, {"model_version": "another"}):
        assert rollback_test.run(observe_rows([replace(row, **changed) for row in rows])).losses == {}


@pytest.mark.parametrize("task", [PURCHASE, FRAUD], ids=lambda task: task.name)
def test_the_parent_predicts_rows_as_a_worker_would(parent: Checkpoint, task: object) -> None:
    # given examples with all their negatives, so that served and training probabilities are equal
    network, examples = parent.build_network(), make_examples(300, 5)
    has_label = examples.has_label(task)  # type: ignore[arg-type]
    rows = [row for row, is_labelled in zip(examples.to_rows(), has_label, strict=True) if is_labelled]

    # when the parent predicts them
    actual = predict_rows(network, task, rows)  # type: ignore[arg-type]

    # then its predictions equal those of the evaluation
    assert actual == pytest.approx(predict(network, examples)[task.name][has_label], abs=1e-6)  # type: ignore[attr-defined]


def test_a_bundle_is_rolled_back_and_the_reasons_are_recorded(harmful: BundlePair) -> None:
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


def test_the_target_of_a_rollback_stays_until_a_new_bundle_is_published(
    harmful: BundlePair, parent: Checkpoint
) -> None:
    # given a bundle with a parent, which was itself the target of a rollback
    newer = publish_checkpoint(
        harmful.bundles, make_checkpoint(perturb(parent, 1.5, seed=2), 10**12 + 2, harmful.version)
    )
    withdraw(harmful.bundles, newer, harmful.version, ["worse"])
    assert current_version(harmful.bundles) == harmful.version

    # then it is not rolled back to its parent
    with pytest.raises(BadBundle, match="stays until a new one is published"):
        find_rollback_target(harmful.bundles, harmful.version)

    # and a new bundle may be rolled back again
    newest = publish_checkpoint(
        harmful.bundles, make_checkpoint(perturb(parent, 1.5, seed=3), 10**12 + 3, harmful.version)
    )
    assert find_rollback_target(harmful.bundles, newest) == harmful.version


def test_a_withdrawn_bundle_is_never_a_rollback_target(harmful: BundlePair, parent: Checkpoint) -> None:
    write_withdrawal(
        harmful.bundles, Withdrawal(version=harmful.version, to="x", reasons=(), decided_ms=1, is_done=True)
    )
    newer = publish_checkpoint(
        harmful.bundles, make_checkpoint(perturb(parent, 0.1, seed=2), 10**12 + 2, harmful.version)
    )

    with pytest.raises(BadBundle, match="none to roll back to"):
        find_rollback_target(harmful.bundles, newer)
    with pytest.raises(BadBundle, match="selected again by an operator"):
        find_rollback_target(harmful.bundles, harmful.version)
    with pytest.raises(BadBundle, match="no parent"):
        find_rollback_target(harmful.bundles, read_manifest(harmful.bundles, harmful.version).parent or "")


def test_an_unfinished_withdrawal_is_completed_and_an_outdated_one_deleted(
    harmful: BundlePair,
) -> None:
    withdrawal = Withdrawal(version=harmful.version, to=harmful.parent, reasons=("worse",), decided_ms=1)
    write_withdrawal(harmful.bundles, withdrawal)

    assert find_unfinished(harmful.bundles, harmful.version) == withdrawal
    assert finish_withdrawal(harmful.bundles, withdrawal) == replace(withdrawal, is_done=True)
    assert current_version(harmful.bundles) == harmful.parent
    assert find_unfinished(harmful.bundles, harmful.version) is None

    # and if another bundle serves by now, nothing is done
    assert finish_withdrawal(harmful.bundles, withdrawal) is None
    assert current_version(harmful.bundles) == harmful.parent


def test_a_rollback_to_a_damaged_parent_fails_and_changes_nothing(harmful: BundlePair) -> None:
    (harmful.bundles / harmful.parent / "decide.onnx").write_bytes(b"cut")

    with pytest.raises(BadBundle, match="should have the digest"):
        withdraw(harmful.bundles, harmful.version, harmful.parent, ["worse"])

    assert current_version(harmful.bundles) == harmful.version
    assert list_withdrawals(harmful.bundles) == []


def test_an_unreadable_withdrawal_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "withdrawn").mkdir()
    (tmp_path / "withdrawn" / "v.json").write_text("junk")

    assert list_withdrawals(tmp_path) == []


def test_a_bundle_published_meanwhile_is_not_rolled_back(harmful: BundlePair) -> None:
    set_current(harmful.bundles, harmful.parent)

    assert withdraw(harmful.bundles, harmful.version, harmful.parent, ["worse"]) is None
    assert current_version(harmful.bundles) == harmful.parent
    assert list_withdrawals(harmful.bundles) == []
