"""What becomes of refused updates: kept aside, passed over, counted, and in the end the model is frozen."""

from argparse import Namespace
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from contract.bundle import current_version
from contract.errors import BadBundle, BadConfig
from contract.features import FeatureSet
from contract.settings import Settings
from export.pointer import rollback
from model.checkpoint import Checkpoint, read_checkpoint
from tests.training.counted import AT_ONCE, POISON, SETTINGS, Log, begun, count, countable, serving, version_of
from tests.training.made import PLAN
from training.commands import follow
from training.commands.follow import FROZEN, REFUSED, look
from training.follow import Update
from training.lock import sole_learner
from training.refused import CHECKPOINTS_MAX, Refusal, Refused

ONE = replace(PLAN, records_max=1)


@pytest.fixture
def bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    countable(monkeypatch)
    return begun(tmp_path / "bundles")


def state(bundles: Path) -> dict[str, object]:
    return dict(msgspec.json.decode((bundles / "learner.json").read_bytes()))


def test_a_refused_update_is_kept_with_its_reason_and_the_pointer_stays(bundles: Path) -> None:
    status, _ = look(Log([b"a", POISON]), bundles, SETTINGS, AT_ONCE)

    (refusal,) = Refused(bundles).unsettled(version_of(1))
    assert status == REFUSED
    assert current_version(bundles) == version_of(1)
    assert refusal.reasons == ("`click` should not be poisoned. Found poison.",)
    assert (refusal.examples, refusal.positions) == (2, {"f/0": 2})
    assert count(read_checkpoint(bundles / "refused" / "checkpoints" / f"{refusal.version}.pt")) == 2
    assert [path.stem for path in (bundles / "checkpoints").iterdir()] == [version_of(1)]


def test_the_learner_goes_on_behind_the_poison_and_learns_the_rest_once(bundles: Path) -> None:
    # Given poison amid what is honest
    log = Log([b"a", b"b", b"c", b"d", b"e", POISON, b"g", b"h", b"i", b"j"])

    # When everything is read, four records a look
    found = [look(log, bundles, SETTINGS, AT_ONCE)[0] for _ in range(4)]

    # Then one look is passed over, and what the serving model stands behind leaves out exactly that
    assert found == [0, REFUSED, 0, 0]
    assert count(serving(bundles)) == 6
    assert serving(bundles).about.positions == {"f/0": 10}


def test_after_refusals_in_a_row_the_model_is_frozen_and_says_so(
    bundles: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = Log([POISON] * PLAN.refusals_max + [b"honest"])

    found = [look(log, bundles, SETTINGS, ONE)[0] for _ in range(PLAN.refusals_max + 2)]

    assert found == [REFUSED] * (PLAN.refusals_max - 1) + [FROZEN] * 3
    assert FROZEN == 4
    assert count(serving(bundles)) == 0
    assert "FROZEN" in capsys.readouterr().err
    assert state(bundles)["frozen"] is True
    assert state(bundles)["refused_in_a_row"] == PLAN.refusals_max


def test_an_update_that_passes_ends_the_row(bundles: Path) -> None:
    log = Log([POISON, POISON, b"honest", POISON, POISON, b"honest"])

    found = [look(log, bundles, SETTINGS, ONE)[0] for _ in log.values]

    assert found == [REFUSED, REFUSED, 0, REFUSED, REFUSED, 0]
    assert state(bundles)["frozen"] is False


def test_a_person_thaws_it_and_it_goes_on_behind_the_poison(bundles: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = Log([POISON] * PLAN.refusals_max + [b"honest"])
    for _ in log.values:
        look(log, bundles, SETTINGS, ONE)

    thawed = follow.run(Namespace(thaw=True, bundles=bundles), Settings(), FeatureSet([]))
    status, _ = look(log, bundles, SETTINGS, ONE)

    assert (thawed, status) == (0, 0)
    assert "3 refused updates" in capsys.readouterr().err
    assert count(serving(bundles)) == 1


def test_another_bundle_that_serves_is_not_frozen(bundles: Path) -> None:
    refused = Refused(bundles)
    for _ in range(PLAN.refusals_max):
        look(Log([POISON] * 3), bundles, SETTINGS, ONE)

    assert len(refused.unsettled(version_of(1))) == 3
    assert refused.unsettled(version_of(2)) == []


def test_what_a_bundle_that_was_pointed_back_from_had_learned_is_passed_over(bundles: Path) -> None:
    # Given two updates that serve, of which a person takes back the last
    log = Log([b"a", b"b", b"c"])
    look(log, bundles, SETTINGS, ONE)
    look(log, bundles, SETTINGS, ONE)
    rollback_unread(bundles, version_of(2))

    # When the learner looks again
    look(log, bundles, SETTINGS, ONE)

    # Then it goes on behind both
    assert count(serving(bundles)) == 2
    assert serving(bundles).about.positions == {"f/0": 3}


def rollback_unread(bundles: Path, expected: str) -> None:
    rollback(bundles)
    assert current_version(bundles) == expected


def test_a_look_with_nothing_to_learn_from_moves_on_and_counts_for_nothing(
    bundles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Checkpoint, "network", lambda checkpoint: None)
    monkeypatch.setattr(follow, "successor", lambda before, network, evaluation, positions: successor(before))
    monkeypatch.setattr(follow, "update", lambda checkpoint, fed, plan, delays: Update(0, {"unreadable": 1}))

    look(Log([b"junk", b"junk"]), bundles, SETTINGS, ONE)

    refused = Refused(bundles)
    assert refused.unsettled(version_of(1)) == []
    assert refused.behind(version_of(1), {}) == {"f/0": 1}


def successor(before: Checkpoint) -> object:
    return replace(before.about, version=version_of(7), created_ms=7)


def refusal(made_ms: int, at: int) -> Refusal:
    return Refusal(
        version=version_of(made_ms),
        parent="p",
        created_ms=made_ms,
        reasons=("no",),
        examples=1,
        positions={"f/0": at},
    )


def test_of_networks_the_newest_few_are_kept_and_of_records_all_that_matter(bundles: Path) -> None:
    refused = Refused(bundles)
    base = serving(bundles)

    for n in range(1, CHECKPOINTS_MAX + 4):
        about = replace(base.about, version=version_of(n))
        refused.keep(refusal(n, n), Checkpoint(about=about, weights=base.weights))

    names = sorted(path.stem for path in (bundles / "refused" / "checkpoints").iterdir())
    assert names == [version_of(n) for n in range(4, CHECKPOINTS_MAX + 4)]
    assert len(refused.unsettled("p")) == CHECKPOINTS_MAX + 3


def test_a_topic_that_was_made_anew_is_read_from_where_the_last_look_ended(bundles: Path) -> None:
    refused = Refused(bundles)
    refused.keep(refusal(5, 2), None)

    assert refused.behind("p", {"f/0": 1_000, "f/1": 3}) == {"f/0": 2, "f/1": 3}


def test_a_record_that_cannot_be_read_is_told(bundles: Path) -> None:
    (bundles / "refused").mkdir()
    (bundles / "refused" / "x.json").write_bytes(b"half")

    with pytest.raises(BadBundle, match="should tell of a refused update"):
        Refused(bundles).unsettled("p")


def test_a_second_learner_of_the_same_bundles_does_not_begin(bundles: Path) -> None:
    args = Namespace(thaw=False, once=True, bundles=bundles)

    with sole_learner(bundles), pytest.raises(BadConfig, match="should have one learner"):
        follow.run(args, SETTINGS, FeatureSet([]))
