"""Workers, `verify`, `rebuild` and `profile` agree on the entities that a shop declares."""

import pytest
from msgspec.structs import replace

from contract.errors import BadConfig
from contract.messages import to_json
from contract.profiles.slices import Slices
from contract.settings.entities import EntitySettings
from contract.settings.reading import Settings
from tests.worker.environment import WorkerEnvironment
from tests.worker.events import make_order
from tests.worker.maintenance.runs import run_rebuild, run_verification
from tests.worker.worker_lifecycle import InProcessWorker
from worker.maintenance.profile_report import print_profile

EMAILS = 3
USERS = 5


def declare_email(stage: WorkerEnvironment) -> None:
    email = EntitySettings(source="event.attributes.email", ignore_case=True)
    stage.settings = stage.settings.model_copy(update={"entities": {"email": email}})


def run_orders(stage: WorkerEnvironment, numbers: range) -> None:
    """Let a worker answer orders of a few users with fewer emails."""
    orders = [
        replace(make_order(f"o{n}", user=f"u{n % USERS}"), attributes={"email": f"{n % EMAILS}@x"}) for n in numbers
    ]
    stage.send("orders", [(order.user_id, to_json(order)) for order in orders])
    with InProcessWorker(stage) as worker:
        worker.process_all(stage.end_offsets("orders"))


def read_email_slices(stage: WorkerEnvironment) -> list[Slices]:
    kinds = stage.settings.entity_kinds()
    entities = [kinds.identify("email", f"{n}@X") for n in range(EMAILS)]
    return [dict(slices) for slices in stage.open_profiles().read(entities)]


def test_declared_entities_are_folded_verified_rebuilt_and_printed(
    apache_stage: WorkerEnvironment, capsys: pytest.CaptureFixture[str]
) -> None:
    # given a worker that has folded orders with emails
    stage = apache_stage
    declare_email(stage)
    run_orders(stage, range(40))
    folded = read_email_slices(stage)
    # then
    assert all(folded)
    assert stage.find_differences("orders") == []
    result = run_verification(stage)
    assert (result.mismatches, result.unchecked, result.entities) == (0, 0, USERS + EMAILS + 1)  # and the item
    # when the state is rebuilt
    run_rebuild(stage)
    # then it is the same
    assert read_email_slices(stage) == folded
    assert print_profile(stage.settings, "email", " 1@X", None) == 0
    assert "linked user" in capsys.readouterr().out


def test_an_entity_that_is_declared_later_counts_the_whole_log_after_a_rebuild(
    apache_stage: WorkerEnvironment,
) -> None:
    # given orders that were folded before emails were an entity
    stage = apache_stage
    run_orders(stage, range(20))
    declare_email(stage)
    run_orders(stage, range(20, 40))
    assert run_verification(stage).mismatches > 0
    # when
    run_rebuild(stage)
    # then
    assert run_verification(stage).mismatches == 0
    assert stage.find_differences("orders") == []


def test_a_profile_of_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BadConfig, match=r"user, device, ip, card, item, seller\. Found `emial`"):
        print_profile(Settings(), "emial", "j@x", None)
