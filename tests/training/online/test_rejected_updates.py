"""Rejected updates: stored with their reasons, skipped, counted, and after several in a row the model is frozen."""

from argparse import Namespace
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from contract.bundle import current_version
from contract.errors import BadBundle, BadConfig
from contract.features.declaration import FeatureSet
from contract.settings.reading import Settings
from export.releases import rollback
from model.checkpoint import Checkpoint, read_checkpoint
from tests.training.counting_learner import (
    POISON,
    SETTINGS,
    SMALL_BATCH_CONFIG,
    InMemoryFeed,
    begin_learner,
    count_learned,
    make_version,
    patch_learning,
    read_serving,
)
from tests.training.examples import PLAN
from training.commands import follow
from training.commands.follow import EXIT_FROZEN, EXIT_REJECTED, run_update
from training.online.lock import learner_lock
from training.online.rejected_updates import CHECKPOINTS_MAX, RejectedUpdate, RejectedUpdateStore
from training.online.update import UpdateResult

ONE_RECORD_CONFIG = PLAN.model_copy(update={"records_max": 1})


@pytest.fixture
def bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    patch_learning(monkeypatch)
    return begin_learner(tmp_path / "bundles")


def read_state(bundles: Path) -> dict[str, object]:
    return dict(msgspec.json.decode((bundles / "learner.json").read_bytes()))


def test_a_rejected_update_is_stored_with_its_reason_and_the_pointer_stays(bundles: Path) -> None:
    status, _ = run_update(InMemoryFeed([b"a", POISON]), bundles, SETTINGS, SMALL_BATCH_CONFIG)

    (rejection,) = RejectedUpdateStore(bundles).list_unsettled(make_version(1))
    assert status == EXIT_REJECTED
    assert current_version(bundles) == make_version(1)
    assert rejection.reasons == ("`click` should not be poisoned. Found poison.",)
    assert (rejection.examples, rejection.positions) == (2, {"f/0": 2})
    assert count_learned(read_checkpoint(bundles / "refused" / "checkpoints" / f"{rejection.version}.pt")) == 2
    assert [path.stem for path in (bundles / "checkpoints").iterdir()] == [make_version(1)]


def test_the_learner_skips_a_poisoned_batch_and_learns_the_rest_once(bundles: Path) -> None:
    # given one poisoned record among honest ones
    log = InMemoryFeed([b"a", b"b", b"c", b"d", b"e", POISON, b"g", b"h", b"i", b"j"])

    # when all is read, four records per update
    actual = [run_update(log, bundles, SETTINGS, SMALL_BATCH_CONFIG)[0] for _ in range(4)]

    # then one batch is skipped, and the serving model has learned all others
    assert actual == [0, EXIT_REJECTED, 0, 0]
    assert count_learned(read_serving(bundles)) == 6
    assert read_serving(bundles).metadata.positions == {"f/0": 10}


def test_several_rejections_in_a_row_freeze_the_model_and_report_it(
    bundles: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = InMemoryFeed([POISON] * PLAN.refusals_max + [b"honest"])

    actual = [run_update(log, bundles, SETTINGS, ONE_RECORD_CONFIG)[0] for _ in range(PLAN.refusals_max + 2)]

    assert actual == [EXIT_REJECTED] * (PLAN.refusals_max - 1) + [EXIT_FROZEN] * 3
    assert EXIT_FROZEN == 4
    assert count_learned(read_serving(bundles)) == 0
    assert [record.levelname for record in caplog.records if "FROZEN" in record.message] == ["ERROR"] * 3
    assert read_state(bundles)["frozen"] is True
    assert read_state(bundles)["refused_in_a_row"] == PLAN.refusals_max


def test_a_passed_update_resets_the_count_of_rejections(bundles: Path) -> None:
    log = InMemoryFeed([POISON, POISON, b"honest", POISON, POISON, b"honest"])

    actual = [run_update(log, bundles, SETTINGS, ONE_RECORD_CONFIG)[0] for _ in log.values]

    assert actual == [EXIT_REJECTED, EXIT_REJECTED, 0, EXIT_REJECTED, EXIT_REJECTED, 0]
    assert read_state(bundles)["frozen"] is False


def test_after_thaw_the_learner_continues_behind_the_poisoned_records(
    bundles: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = InMemoryFeed([POISON] * PLAN.refusals_max + [b"honest"])
    for _ in log.values:
        run_update(log, bundles, SETTINGS, ONE_RECORD_CONFIG)

    thawed = follow.run(Namespace(thaw=True, bundles=bundles), Settings(), FeatureSet([]))
    status, _ = run_update(log, bundles, SETTINGS, ONE_RECORD_CONFIG)

    assert (thawed, status) == (0, 0)
    assert "3 rejected updates" in capsys.readouterr().err
    assert count_learned(read_serving(bundles)) == 1


def test_rejections_of_one_bundle_do_not_freeze_another(bundles: Path) -> None:
    store = RejectedUpdateStore(bundles)
    for _ in range(PLAN.refusals_max):
        run_update(InMemoryFeed([POISON] * 3), bundles, SETTINGS, ONE_RECORD_CONFIG)

    assert len(store.list_unsettled(make_version(1))) == 3
    assert store.list_unsettled(make_version(2)) == []


def test_feedback_that_a_rolled_back_bundle_had_learned_is_skipped(bundles: Path) -> None:
    # given two published updates, of which the last is rolled back
    log = InMemoryFeed([b"a", b"b", b"c"])
    run_update(log, bundles, SETTINGS, ONE_RECORD_CONFIG)
    run_update(log, bundles, SETTINGS, ONE_RECORD_CONFIG)
    rollback_to(bundles, make_version(2))

    # when the learner runs again
    run_update(log, bundles, SETTINGS, ONE_RECORD_CONFIG)

    # then it continues behind both
    assert count_learned(read_serving(bundles)) == 2
    assert read_serving(bundles).metadata.positions == {"f/0": 3}


def rollback_to(bundles: Path, expected: str) -> None:
    rollback(bundles)
    assert current_version(bundles) == expected


def test_a_batch_without_usable_records_is_skipped_and_not_counted_as_rejection(
    bundles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Checkpoint, "build_network", lambda checkpoint: None)
    monkeypatch.setattr(
        follow, "describe_update", lambda before, network, evaluation, positions: next_checkpoint(before)
    )
    monkeypatch.setattr(
        follow, "update", lambda checkpoint, feedback, config, delays: UpdateResult(0, {"unreadable": 1})
    )

    run_update(InMemoryFeed([b"junk", b"junk"]), bundles, SETTINGS, ONE_RECORD_CONFIG)

    store = RejectedUpdateStore(bundles)
    assert store.list_unsettled(make_version(1)) == []
    assert store.resume_positions(make_version(1), {}) == {"f/0": 1}


def next_checkpoint(before: Checkpoint) -> object:
    return replace(before.metadata, version=make_version(7), created_ms=7)


def make_rejection(created_ms: int, offset: int) -> RejectedUpdate:
    return RejectedUpdate(
        version=make_version(created_ms),
        parent="p",
        created_ms=created_ms,
        reasons=("no",),
        examples=1,
        positions={"f/0": offset},
    )


def test_the_newest_few_networks_are_kept_and_all_records(bundles: Path) -> None:
    store = RejectedUpdateStore(bundles)
    base = read_serving(bundles)

    for n in range(1, CHECKPOINTS_MAX + 4):
        metadata = replace(base.metadata, version=make_version(n))
        store.add(make_rejection(n, n), Checkpoint(metadata=metadata, weights=base.weights))

    names = sorted(path.stem for path in (bundles / "refused" / "checkpoints").iterdir())
    assert names == [make_version(n) for n in range(4, CHECKPOINTS_MAX + 4)]
    assert len(store.list_unsettled("p")) == CHECKPOINTS_MAX + 3


def test_a_recreated_topic_is_read_from_the_end_of_the_latest_update(bundles: Path) -> None:
    store = RejectedUpdateStore(bundles)
    store.add(make_rejection(5, 2), None)

    assert store.resume_positions("p", {"f/0": 1_000, "f/1": 3}) == {"f/0": 2, "f/1": 3}


def test_an_unreadable_record_raises_an_error(bundles: Path) -> None:
    (bundles / "refused").mkdir()
    (bundles / "refused" / "x.json").write_bytes(b"half")

    with pytest.raises(BadBundle, match="should be the record of a rejected update"):
        RejectedUpdateStore(bundles).list_unsettled("p")


def test_a_second_learner_of_the_same_bundles_does_not_start(bundles: Path) -> None:
    args = Namespace(thaw=False, once=True, bundles=bundles)

    with learner_lock(bundles), pytest.raises(BadConfig, match="should have one learner"):
        follow.run(args, SETTINGS, FeatureSet([]))
