from pathlib import Path
from typing import NamedTuple

import pytest
from msgspec.structs import replace

from contract.bundle import current_version, point_to, read_manifest
from contract.errors import BadBundle
from model.checkpoint import Checkpoint
from model.network import Network
from tests.model.small import FRAUD, PURCHASE, SHAPE
from tests.training.made import PLAN, make_examples
from tests.training.served import WATCHING, checkpoint_of, lived, published, served, shaken
from training.fit import fit
from training.learner import predict
from training.looks import Looks
from training.rollback import Withdrawn, finish, keep, parent_of, unfinished, withdraw, withdrawn
from training.verdict import SCORE, Judge, Verdict, said_now

SEEDS = 20


@pytest.fixture(scope="module")
def parent() -> Checkpoint:
    fitted = fit(make_examples(1_000, 3), SHAPE, replace(PLAN, epochs=6), lambda epoch: None)
    return checkpoint_of(fitted.network, 10**12)


class Served(NamedTuple):
    """A bundle that serves, and its parent."""

    bundles: Path
    version: str
    parent: str
    network: Network


def serving(folder: Path, parent: Checkpoint, by: float) -> Served:
    """The parent was published, then the same network shaken by so much."""
    network = shaken(parent, by)
    first = published(folder, parent)
    return Served(folder, published(folder, checkpoint_of(network, 10**12 + 1, first)), first, network)


@pytest.fixture(scope="module")
def healthy(parent: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Served:
    return serving(tmp_path_factory.mktemp("healthy"), parent, 0.01)


@pytest.fixture
def harmful(parent: Checkpoint, tmp_path: Path) -> Served:
    return serving(tmp_path, parent, 1.5)


def judged(of: Served, parent: Checkpoint, folder: Path, rows: int, seed: int) -> Verdict:
    judge = Judge(
        network=parent.network(),
        looks=Looks(bundles=folder, version=of.version, rows_min=WATCHING.rows_min),
        watching=WATCHING,
    )
    return judge.look(lived(served(of.network, of.version, rows, seed)))


def test_a_harmful_model_is_worse_than_its_parent_by_what_it_said(
    harmful: Served, parent: Checkpoint, tmp_path: Path
) -> None:
    verdict = judged(harmful, parent, tmp_path, 1_200, 40)

    assert verdict.reasons
    assert verdict.excess[SCORE].lost > WATCHING.score_margin
    assert any(reason.startswith("click: a bundle should lose at most 0.05") for reason in verdict.reasons)


def test_a_healthy_model_is_not_worse_on_any_of_many_draws(healthy: Served, parent: Checkpoint, tmp_path: Path) -> None:
    verdicts = []
    for seed in range(SEEDS):
        (tmp_path / f"{seed}").mkdir()
        verdicts.append(judged(healthy, parent, tmp_path / f"{seed}", 500, 100 + seed))

    assert all("click" in verdict.excess for verdict in verdicts)
    assert [verdict.reasons for verdict in verdicts] == [()] * SEEDS


def test_too_few_rows_are_not_looked_at(harmful: Served, parent: Checkpoint, tmp_path: Path) -> None:
    verdict = judged(harmful, parent, tmp_path, WATCHING.rows_min - 1, 40)

    assert verdict == Verdict(harmful.version, {})
    assert not (tmp_path / "watched.json").exists() or "click" not in (tmp_path / "watched.json").read_text()


def test_rows_of_other_features_or_of_another_version_are_not_compared(harmful: Served, parent: Checkpoint) -> None:
    rows = served(harmful.network, harmful.version, 600, 40)
    judge = Judge(
        network=parent.network(),
        looks=Looks(bundles=harmful.bundles, version=harmful.version, rows_min=WATCHING.rows_min),
        watching=WATCHING,
    )

    for others in ({"features": "another"}, {"model_version": "another"}):
        assert judge.look(lived([replace(row, **others) for row in rows])).excess == {}


@pytest.mark.parametrize("task", [PURCHASE, FRAUD], ids=lambda task: task.name)
def test_the_parent_is_asked_as_a_worker_would_ask_it(parent: Checkpoint, task: object) -> None:
    # Given examples whose negatives were not thinned out, so that what is said in life and of a sample is the same
    network, examples = parent.network(), make_examples(300, 5)
    rows = examples.to_rows()
    has = examples.known(task)  # type: ignore[arg-type]

    found = said_now(network, task, [row for row, has_it in zip(rows, has, strict=True) if has_it])  # type: ignore[arg-type]

    assert found == pytest.approx(predict(network, examples)[task.name][has], abs=1e-6)  # type: ignore[attr-defined]


def test_a_bundle_is_taken_back_and_why_is_kept(harmful: Served) -> None:
    done = withdraw(harmful.bundles, harmful.version, harmful.parent, ["click: worse"])

    assert current_version(harmful.bundles) == harmful.parent
    assert withdrawn(harmful.bundles) == [done]
    assert done is not None
    assert (done.version, done.to, done.reasons, done.is_done) == (
        harmful.version,
        harmful.parent,
        ("click: worse",),
        True,
    )


def test_a_bundle_that_was_gone_back_to_stays_until_a_new_one_comes(harmful: Served, parent: Checkpoint) -> None:
    # Given a bundle with a parent of its own, which was gone back to
    newer = published(harmful.bundles, checkpoint_of(shaken(parent, 1.5, seed=2), 10**12 + 2, harmful.version))
    withdraw(harmful.bundles, newer, harmful.version, ["worse"])
    assert current_version(harmful.bundles) == harmful.version

    # Then it is not left for its parent
    with pytest.raises(BadBundle, match="stays until a new one comes"):
        parent_of(harmful.bundles, harmful.version)

    # And a new bundle may be taken back again
    newest = published(harmful.bundles, checkpoint_of(shaken(parent, 1.5, seed=3), 10**12 + 3, harmful.version))
    assert parent_of(harmful.bundles, newest) == harmful.version


def test_nothing_is_gone_back_to_that_was_taken_back_itself(harmful: Served, parent: Checkpoint) -> None:
    keep(harmful.bundles, Withdrawn(version=harmful.version, to="x", reasons=(), decided_ms=1, is_done=True))
    newer = published(harmful.bundles, checkpoint_of(shaken(parent, 0.1, seed=2), 10**12 + 2, harmful.version))

    with pytest.raises(BadBundle, match="none to go back to"):
        parent_of(harmful.bundles, newer)
    with pytest.raises(BadBundle, match="somebody has pointed to it again"):
        parent_of(harmful.bundles, harmful.version)
    with pytest.raises(BadBundle, match="no parent"):
        parent_of(harmful.bundles, read_manifest(harmful.bundles, harmful.version).parent or "")


def test_a_decision_that_a_dead_watcher_left_is_carried_out_and_one_of_the_past_is_forgotten(harmful: Served) -> None:
    decision = Withdrawn(version=harmful.version, to=harmful.parent, reasons=("worse",), decided_ms=1)
    keep(harmful.bundles, decision)

    assert unfinished(harmful.bundles, harmful.version) == decision
    assert finish(harmful.bundles, decision) == replace(decision, is_done=True)
    assert current_version(harmful.bundles) == harmful.parent
    assert unfinished(harmful.bundles, harmful.version) is None

    # And where another bundle serves by now, nothing is done
    assert finish(harmful.bundles, decision) is None
    assert current_version(harmful.bundles) == harmful.parent


def test_a_parent_that_is_not_whole_is_not_gone_back_to_and_nothing_is_left_behind(harmful: Served) -> None:
    (harmful.bundles / harmful.parent / "decide.onnx").write_bytes(b"cut")

    with pytest.raises(BadBundle, match="should have the digest"):
        withdraw(harmful.bundles, harmful.version, harmful.parent, ["worse"])

    assert current_version(harmful.bundles) == harmful.version
    assert withdrawn(harmful.bundles) == []


def test_what_cannot_be_read_is_no_withdrawal(tmp_path: Path) -> None:
    (tmp_path / "withdrawn").mkdir()
    (tmp_path / "withdrawn" / "v.json").write_text("junk")

    assert withdrawn(tmp_path) == []


def test_another_bundle_that_was_published_meanwhile_is_left_alone(harmful: Served) -> None:
    point_to(harmful.bundles, harmful.parent)

    assert withdraw(harmful.bundles, harmful.version, harmful.parent, ["worse"]) is None
    assert current_version(harmful.bundles) == harmful.parent
    assert withdrawn(harmful.bundles) == []
