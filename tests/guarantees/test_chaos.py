"""Every promise under a short seeded mixture of faults; `python -m bench chaos` has longer ones of all kinds."""

from pathlib import Path
from typing import Final

import pytest

from devservers.apache_kafka import unavailable_reason
from testkit.chaos.chaos_run import ChaosRun
from testkit.chaos.outcome import ChaosPlan

FAULTS: Final = (
    "SIGKILL",
    "SIGKILL in commit",
    "SIGKILL in merge",
    "SIGTERM",
    "frozen briefly",
    "frozen in publish",
    "broker killed",
    "foreign transaction",
    "Redis paused",
    "Redis full",
    "Redis set back",
    "poison records",
    "events repeated",
    "clock stepped",
    "users erased",
    "bundle swapped",
    "disk full for a bundle",
)


@pytest.mark.apache_kafka
@pytest.mark.timeout(1000)  # a busy machine catches up slowly
def test_after_a_mixture_of_faults_all_has_caught_up_and_every_promise_is_kept(tmp_path: Path, seed: int) -> None:
    # given
    if reason := unavailable_reason():
        pytest.skip(reason)
    plan = ChaosPlan(
        minutes=10,
        seed=seed,
        faults=FAULTS,
        faults_per_round=len(FAULTS),
        round_s=30.0,
        rounds_per_environment=1,
        rounds_max=1,
        catch_up_s=120.0,
        events_per_s=100.0,
    )
    # when
    outcome = ChaosRun(plan=plan, report=print, folder=tmp_path).run()
    # then
    assert outcome.passed, outcome
    assert outcome.events > 1_000
    assert sum(outcome.faults.values()) >= len(FAULTS) // 2
