"""Experiments: the assignment of users. Trials: their pointer, and the users of a canary."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import BadBundle
from contract.experiment import VARIANT, Trial, assign_arm, end_trial, read_trial, set_trial

USERS = [f"u{n}" for n in range(20_000)]


def test_a_trial_is_active_until_it_ends(tmp_path: Path) -> None:
    # given
    actual = [read_trial(tmp_path)]
    # when
    set_trial(tmp_path, Trial(version="v2"))
    actual.append(read_trial(tmp_path))
    set_trial(tmp_path, Trial(version="v2", share=0.25))
    actual.append(read_trial(tmp_path))
    ended = end_trial(tmp_path)
    # then
    assert actual == [None, Trial(version="v2"), Trial(version="v2", share=0.25)]
    assert (ended, read_trial(tmp_path), list(tmp_path.iterdir())) == (actual[-1], None, [])
    assert end_trial(tmp_path) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff",
        json.dumps(["v2"]).encode(),
        b"{}",
        b'{"version": ""}',
        b'{"version": "v2", "share": 1.01}',
        b'{"version": "v2", "share": -0.1}',
        b'{"version": "v2", "share": "all"}',
        b'{"version": "v2", "share": NaN}',
    ],
)
def test_a_broken_pointer_is_refused_and_can_be_removed(tmp_path: Path, content: bytes) -> None:
    # given
    (tmp_path / "trial.json").write_bytes(content)
    # then
    with pytest.raises(BadBundle, match=r"trial\.json should name a version and a share from 0 to 1"):
        read_trial(tmp_path)
    end_trial(tmp_path)
    assert read_trial(tmp_path) is None


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.5, 1.0])
def test_a_canary_takes_its_share_of_users(share: float) -> None:
    actual = sum(map(Trial(version="v2", share=share).includes, USERS)) / len(USERS)

    assert actual == pytest.approx(share, abs=0.01)
    assert Trial(version="v2", share=share).is_shadow == (share == 0)


def test_a_growing_canary_keeps_its_users_and_the_next_trial_has_others() -> None:
    # given
    small, large, next_trial = (
        {user for user in USERS if Trial(version=version, share=share).includes(user)}
        for version, share in (("v2", 0.1), ("v2", 0.2), ("v3", 0.1))
    )
    # then
    assert small < large
    assert len(small & next_trial) == pytest.approx(0.01 * len(USERS), rel=0.3)


def test_the_users_of_a_canary_are_the_same_everywhere() -> None:
    trial = Trial(version="2026-11-28T10", share=0.3)

    assert [user for user in USERS[:20] if trial.includes(user)] == [
        "u3",
        "u4",
        "u5",
        "u6",
        "u8",
        "u10",
        "u12",
        "u14",
        "u16",
        "u17",
        "u19",
    ]


NAMES = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,20}", fullmatch=True)


def find_variant(experiment: str, share: float) -> set[str]:
    return {user for user in USERS[:4_000] if assign_arm(experiment, share, user) == VARIANT}


@given(name=NAMES, share=st.floats(0.02, 0.98))
def test_an_experiment_takes_its_share_of_users(name: str, share: float) -> None:
    deviation = (share * (1 - share) / 4_000) ** 0.5

    assert len(find_variant(name, share)) / 4_000 == pytest.approx(share, abs=5.5 * deviation)


@given(names=st.lists(NAMES, min_size=2, max_size=2, unique=True), shares=st.tuples(*[st.floats(0.1, 0.9)] * 2))
def test_the_arms_of_two_experiments_are_independent(names: list[str], shares: tuple[float, float]) -> None:
    # given the users of each arm
    first, second = (find_variant(name, share) for name, share in zip(names, shares, strict=True))
    # then those of one are found among those of the other as often as among all
    expected = len(first) * len(second) / 4_000
    deviation = (expected * (1 - shares[0]) * (1 - shares[1])) ** 0.5
    assert len(first & second) == pytest.approx(expected, abs=5.5 * deviation)


@given(name=NAMES, shares=st.tuples(*[st.floats(0.01, 0.99)] * 2))
def test_a_user_of_a_small_share_is_in_every_larger_one(name: str, shares: tuple[float, float]) -> None:
    assert find_variant(name, min(shares)) <= find_variant(name, max(shares))


@given(name=NAMES)
def test_an_experiment_is_independent_of_a_canary_of_the_same_name(name: str) -> None:
    canary = {user for user in USERS[:4_000] if Trial(version=name, share=0.5).includes(user)}

    assert len(find_variant(name, 0.5) & canary) == pytest.approx(1_000, abs=5.5 * 22)
