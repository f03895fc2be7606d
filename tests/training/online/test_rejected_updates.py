"""What becomes of refused updates: kept aside, passed over, counted, and in the end the model is frozen."""

from argparse import Namespace
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from contract.bundle import current_version
from contract.errors import BadBundle, BadConfig
from contract.features.declaration import FeatureSet
from contract.settings import Settings
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


def test_a_refused_update_is_kept_with_its_reason_and_the_pointer_stays(bundles: Path) -> None:
    status, _ = run_update(InMemoryFeed([b"a", POISON]), bundles, SETTINGS, SMALL_BATCH_CONFIG)

    (refusal,) = RejectedUpdateStore(bundles).list_unsettled(make_version(1))
    assert status == EXIT_REJECTED
    assert current_version(bundles) == make_version(1)
    assert refusal.reasons == ("`click` should not be poisoned. Found poison.",)
    assert (refusal.examples, refusal.positions) == (2, {"f/0": 2})
    assert count_learned(read_checkpoint(bundles / "refused" / "checkpoints" / f"{refusal.version}.pt")) == 2
    assert [path.stem for path in (bundles / "checkpoints").iterdir()] == [make_version(1)]


def test_the_learner_goes_on_behind_the_poison_and_learns_the_rest_once(bundles: Path) -> None:
    # Given poison amid what is honest
    log = InMemoryFeed([b"a", b"b", b"c", b"d", b"e", POISON, b"g", b"h", b"i", b"j"])

    # When everything is read, four records a look
    actual = [run_update(log, bundles, SETTINGS, SMALL_BATCH_CONFIG)[0] for _ in range(4)]

    # Then one look is passed over, and what the serving model stands behind leaves out exactly that
    assert actual == [0, EXIT_REJECTED, 0, 0]
    assert count_learned(read_serving(bundles)) == 6
    assert read_serving(bundles).metadata.positions == {"f/0": 10}


def test_after_refusals_in_a_row_the_model_is_frozen_and_says_so(
    bundles: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = InMemoryFeed([POISON] * PLAN.refusals_max + [b"honest"])

    actual = [run_update(log, bundles, SETTINGS, ONE_RECORD_CONFIG)[0] for _ in range(PLAN.refusals_max + 2)]

    assert actual == [EXIT_REJECTED] * (PLAN.refusals_max - 1) + [EXIT_FROZEN] * 3
    assert EXIT_FROZEN == 4
    assert count_learned(read_serving(bundles)) == 0
    assert "FROZEN" in capsys.readouterr().err
    assert read_state(bundles)["frozen"] is True
    assert read_state(bundles)["refused_in_a_row"] == PLAN.refusals_max


def test_an_update_that_passes_ends_the_row(bundles: Path) -> None:
    log = InMemoryFeed([POISON, POISON, b"honest", POISON, POISON, b"honest"])

    actual = [run_update(log, bundles, SETTINGS, ONE_RECORD_CONFIG)[0] for _ in log.values]

    assert actual == [EXIT_REJECTED, EXIT_REJECTED, 0, EXIT_REJECTED, EXIT_REJECTED, 0]
    assert read_state(bundles)["frozen"] is False


def test_a_person_thaws_it_and_it_goes_on_behind_the_poison(bundles: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = InMemoryFeed([POISON] * PLAN.refusals_max + [b"honest"])
    for _ in log.values:
        run_update(log, bundles, SETTINGS, ONE_RECORD_CONFIG)

    thawed = follow.run(Namespace(thaw=True, bundles=bundles), Settings(), FeatureSet([]))
    status, _ = run_update(log, bundles, SETTINGS, ONE_RECORD_CONFIG)

    assert (thawed, status) == (0, 0)
    assert "3 refused updates" in capsys.readouterr().err
    assert count_learned(read_serving(bundles)) == 1


def test_another_bundle_that_serves_is_not_frozen(bundles: Path) -> None:
    refused = RejectedUpdateStore(bundles)
    for _ in range(PLAN.refusals_max):
        run_update(InMemoryFeed([POISON] * 3), bundles, SETTINGS, ONE_RECORD_CONFIG)

    assert len(refused.list_unsettled(make_version(1))) == 3
    assert refused.list_unsettled(make_version(2)) == []


def test_what_a_bundle_that_was_pointed_back_from_had_learned_is_passed_over(bundles: Path) -> None:
    # Given two updates that serve, of which a person takes back the last
    log = InMemoryFeed([b"a", b"b", b"c"])
    run_update(log, bundles, SETTINGS, ONE_RECORD_CONFIG)
    run_update(log, bundles, SETTINGS, ONE_RECORD_CONFIG)
    rollback_unread(bundles, make_version(2))

    # When the learner looks again
    run_update(log, bundles, SETTINGS, ONE_RECORD_CONFIG)

    # Then it goes on behind both
    assert count_learned(read_serving(bundles)) == 2
    assert read_serving(bundles).metadata.positions == {"f/0": 3}


def rollback_unread(bundles: Path, expected: str) -> None:
    rollback(bundles)
    assert current_version(bundles) == expected


def test_a_look_with_nothing_to_learn_from_moves_on_and_counts_for_nothing(
    bundles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Checkpoint, "build_network", lambda checkpoint: None)
    monkeypatch.setattr(
        follow, "describe_update", lambda before, network, evaluation, positions: next_checkpoint(before)
    )
    monkeypatch.setattr(follow, "update", lambda checkpoint, fed, plan, delays: UpdateResult(0, {"unreadable": 1}))

    run_update(InMemoryFeed([b"junk", b"junk"]), bundles, SETTINGS, ONE_RECORD_CONFIG)

    refused = RejectedUpdateStore(bundles)
    assert refused.list_unsettled(make_version(1)) == []
    assert refused.resume_positions(make_version(1), {}) == {"f/0": 1}


def next_checkpoint(before: Checkpoint) -> object:
    return replace(before.metadata, version=make_version(7), created_ms=7)


def make_refusal(made_ms: int, at: int) -> RejectedUpdate:
    return RejectedUpdate(
        version=make_version(made_ms),
        parent="p",
        created_ms=made_ms,
        reasons=("no",),
        examples=1,
        positions={"f/0": at},
    )


def test_of_networks_the_newest_few_are_kept_and_of_records_all_that_matter(bundles: Path) -> None:
    refused = RejectedUpdateStore(bundles)
    base = read_serving(bundles)

    for n in range(1, CHECKPOINTS_MAX + 4):
        about = replace(base.metadata, version=make_version(n))
        refused.add(make_refusal(n, n), Checkpoint(metadata=about, weights=base.weights))

    names = sorted(path.stem for path in (bundles / "refused" / "checkpoints").iterdir())
    assert names == [make_version(n) for n in range(4, CHECKPOINTS_MAX + 4)]
    assert len(refused.list_unsettled("p")) == CHECKPOINTS_MAX + 3


def test_a_topic_that_was_made_anew_is_read_from_where_the_last_look_ended(bundles: Path) -> None:
    refused = RejectedUpdateStore(bundles)
    refused.add(make_refusal(5, 2), None)

    assert refused.resume_positions("p", {"f/0": 1_000, "f/1": 3}) == {"f/0": 2, "f/1": 3}


def test_a_record_that_cannot_be_read_is_told(bundles: Path) -> None:
    (bundles / "refused").mkdir()
    (bundles / "refused" / "x.json").write_bytes(b"half")

    with pytest.raises(BadBundle, match="should tell of a refused update"):
        RejectedUpdateStore(bundles).list_unsettled("p")


def test_a_second_learner_of_the_same_bundles_does_not_begin(bundles: Path) -> None:
    args = Namespace(thaw=False, once=True, bundles=bundles)

    with learner_lock(bundles), pytest.raises(BadConfig, match="should have one learner"):
        follow.run(args, SETTINGS, FeatureSet([]))
