"""The bench of abused lists: one account moves nothing, and a hundred accounts are a hundred people."""

import pytest

from bench.quality import abuse_of_lists
from bench.quality.abuse_of_lists import AbuseFigures, CaseResult, Ranks, measure
from devservers.redis_server import RedisServer


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shop with fewer events."""
    monkeypatch.setattr(abuse_of_lists, "CLICKS", 900)
    monkeypatch.setattr(abuse_of_lists, "ORDERS", 50)


@pytest.mark.usefixtures("small")
def test_one_account_moves_nothing_and_accounts_count_once_each(redis_server: RedisServer) -> None:
    account = measure(redis_server, 1, accounts=1, clicks=300)
    accounts, people = (measure(redis_server, 1, accounts=20, clicks=clicks) for clicks in (10, 1))

    assert (account.before, account.people, account.moved) == (account.after, 1.0, 0)
    assert (accounts.after, accounts.people) == (people.after, 20.0)
    assert accounts.after["trending"] == 1


def test_a_missed_aim_is_named() -> None:
    ranks: Ranks = dict.fromkeys(abuse_of_lists.KEYS, 1)
    fine = CaseResult(before=ranks, after=ranks, people=100.0, moved=0)
    moving = CaseResult(before=ranks, after=ranks, people=1.0, moved=3)
    assert list(AbuseFigures(one_account=fine, hundred_accounts=fine, hundred_people=fine).missed_aims) == []
    missed = AbuseFigures(one_account=moving, hundred_accounts=fine, hundred_people=moving).missed_aims
    assert [aim.split(":")[0] for aim in missed] == [
        "one account moves nothing",
        "100 accounts count as 100 people at most",
    ]
