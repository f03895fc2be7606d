"""A worker says that its model expects histories which Redis does not have."""

import logging

import numpy as np
import pytest
from msgspec.structs import replace

from contract.profiles.slices import LoadedSlices
from testkit.environment.tiny_bundle import make_manifest
from worker.pipeline.history_check import USERS_MIN, HistoryCheck


def observe(check: HistoryCheck, users: int, with_profile: int) -> None:
    """A batch of users, the first of whom have a profile, and as many devices, which all have one."""
    entities = [f"user:u{n}" for n in range(users)] + [f"device:d{n}" for n in range(users)]
    indices = np.array([*range(with_profile), *range(users, 2 * users)], np.int64)
    check.observe(entities, LoadedSlices(2 * users, ["orders/0"], indices, np.zeros(len(indices), np.int64), []))


def make_check(profile_share: float | None) -> HistoryCheck:
    check = HistoryCheck()
    check.expect(replace(make_manifest("v1"), profile_share=profile_share))
    return check


@pytest.mark.parametrize(
    ("trained", "with_profile", "warnings"),
    [(0.9, 0, 1), (0.9, 10, 1), (0.9, 90, 0), (0.9, 25, 0), (0.05, 2, 0), (None, 0, 0)],
)
def test_a_model_trained_on_histories_that_redis_lacks_is_warned_about_once(
    trained: float | None, with_profile: int, warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    check = make_check(trained)

    with caplog.at_level(logging.WARNING):
        for _ in range(3 * USERS_MIN // 100):
            observe(check, 100, with_profile)

    assert caplog.text.count("until profiles are filled from history") == warnings


def test_a_few_users_judge_nothing_and_a_new_model_is_judged_anew(caplog: pytest.LogCaptureFixture) -> None:
    check = make_check(0.9)

    with caplog.at_level(logging.WARNING):
        observe(check, USERS_MIN - 1, 0)
        few = caplog.text
        observe(check, 1, 0)
        check.expect(replace(make_manifest("v2"), profile_share=0.8))
        observe(check, USERS_MIN, 0)

    assert few == ""
    assert "Model v1 was trained with a history in 90 % of its rows; Redis has one of 0 %" in caplog.text
    assert "Model v2 was trained with a history in 80 %" in caplog.text
