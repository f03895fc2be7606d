"""Laws of logins (batching, replay, order, erasures), for every store, against a plain second implementation."""

import itertools
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.errors import BadProfile
from contract.events.guests import is_guest, to_guest_user
from contract.events.model import Click, Erasure
from contract.profiles.entity_updates import Arrival
from contract.profiles.erasures import NO_ERASURES, Erasures
from contract.profiles.logins import (
    GUEST_USERS_MAX,
    SHARED,
    USER_GUESTS_MAX,
    LoginWrite,
    Row,
    add_logins,
    find_logins_defect,
    read_rows,
    tag_user,
    write_rows,
)
from contract.profiles.record import HORIZON_MS
from contract.profiles.store import ProfileStore
from testkit.oracle.feeder import ProfileFeeder, split_batches
from tests.contract.conftest import NewStore

BEGAN_MS = 1_700_000_000_000
SOURCES = ("clicks/0", "clicks/1", "searches/0")
examples = settings(max_examples=25, deadline=None)
Logins = dict[tuple[str, str], set[Row]]  # by user id and source


def make_log(seed: int, size: int) -> list[Arrival]:
    """Clicks of users, guests and both, seconds apart and sometimes backwards."""
    rng, ts_ms, arrivals = random.Random(seed), BEGAN_MS, list[Arrival]()
    for offset in range(size):
        ts_ms += rng.choice((0, 1, 1_000, 60_000, -90_000))
        user, guest = rng.choice(("u1", "u2", "u3", "")), rng.choice(("g1", "g2", "u1", None, None))
        click = Click(
            event_id=f"c{offset}",
            ts_ms=ts_ms,
            user_id=user or (to_guest_user(guest) if guest else ""),
            guest_id=guest,
            item_id=f"i{rng.choice(range(9))}",
        )
        arrivals.append(Arrival(rng.choice(SOURCES), offset, click))
    return arrivals


def read_logins(store: ProfileStore) -> Logins:
    """What a store holds of all ids of the log."""
    users = ["u1", "u2", "u3", *map(to_guest_user, ("g1", "g2", "u1"))]
    loaded = store.read_histories([f"user:{user}" for user in users])
    return {(users[number], source): set(read_rows(record)) for number, source, record in loaded.logins}


def feed(store: ProfileStore, batches: Sequence[Sequence[Arrival]], erasures: Erasures = NO_ERASURES) -> Logins:
    feeder = ProfileFeeder(store, erasures)
    for batch in batches:
        feeder.feed(batch)
    return read_logins(store)


def expect_logins(arrivals: Sequence[Arrival], erased_until: dict[str, int] | None = None) -> Logins:
    """The specification once more, by sets of times."""
    times: dict[tuple[str, str], dict[str, list[int]]] = {}
    for arrival in arrivals:
        event = arrival.event
        assert isinstance(event, Click)
        if event.guest_id is None or not event.user_id or is_guest(event.user_id):
            continue
        for own, other in ((event.user_id, event.guest_id), (to_guest_user(event.guest_id), tag_user(event.user_id))):
            if event.ts_ms > (erased_until or {}).get(own, -1):
                times.setdefault((own, arrival.source), {}).setdefault(other, []).append(event.ts_ms)
    return {
        name: {(other, min(ms) if is_guest(name[0]) else max(ms), max(ms)) for other, ms in own.items()}
        for name, own in times.items()
    }


@given(seed=st.integers(0, 2**32), sizes=st.lists(st.integers(1, 20), min_size=1))
@examples
def test_logins_are_the_same_however_the_log_is_cut(new_store: NewStore, seed: int, sizes: list[int]) -> None:
    # given
    arrivals = make_log(seed, 60)
    # when
    whole = feed(new_store(), [arrivals])
    parts = feed(new_store(), list(split_batches(arrivals, itertools.cycle(sizes))))
    # then
    assert whole == parts == expect_logins(arrivals)


@given(seed=st.integers(0, 2**32), start=st.integers(0, 59))
@examples
def test_reading_any_suffix_again_changes_no_login(new_store: NewStore, seed: int, start: int) -> None:
    # given
    arrivals, store = make_log(seed, 60), new_store()
    once = feed(store, [arrivals])
    # when
    feed(store, [arrivals[start:]])
    # then
    assert read_logins(store) == once


@given(seed=st.integers(0, 2**32), until_s=st.integers(0, 600))
@examples
def test_logins_with_an_erasure_are_those_of_the_log_without_the_erased_ones(
    new_store: NewStore, seed: int, until_s: int
) -> None:
    # given
    arrivals, until_ms = make_log(seed, 60), BEGAN_MS + 1_000 * until_s
    erased = {"u1": until_ms, to_guest_user("g1"): until_ms}
    erasures = Erasures(Erasure(event_id="e", ts_ms=ms, user_id=user) for user, ms in erased.items())
    # then
    assert feed(new_store(), [arrivals], erasures) == expect_logins(arrivals, erased)


@given(order=st.permutations(range(40)))
@examples
def test_the_order_of_logins_does_not_matter(order: list[int]) -> None:
    # given logins of more guests than are kept, and of one guest
    def fold(numbers: Sequence[int], entity: str, others: int) -> bytes:
        writes = [LoginWrite(entity, "clicks/0", n, f"x{n % others}", BEGAN_MS + n // 3) for n in numbers]
        return add_logins(b"", writes)

    # then
    for entity, others in (("user:u", 40), ("user:u", 5), ("user:guest:g", 7), ("user:guest:g", GUEST_USERS_MAX + 1)):
        assert fold(order, entity, others) == fold(range(40), entity, others)


def test_a_user_keeps_the_latest_guests_and_a_guest_of_many_users_becomes_shared() -> None:
    # given
    many = [LoginWrite("user:u", "clicks/0", n, f"g{n}", BEGAN_MS + n) for n in range(USER_GUESTS_MAX + 3)]
    few = [LoginWrite("user:guest:g", "clicks/0", n, f"t{n}", BEGAN_MS + n) for n in range(GUEST_USERS_MAX + 1)]
    # then
    kept = [row[0] for row in read_rows(add_logins(b"", many))]
    assert kept == [f"g{n}" for n in range(3, USER_GUESTS_MAX + 3)]
    assert len(read_rows(add_logins(b"", few[:-1]))) == GUEST_USERS_MAX
    shared = add_logins(b"", few)
    assert [row[0] for row in read_rows(shared)] == [SHARED]
    assert [row[0] for row in read_rows(add_logins(shared, few[:1]))] == [SHARED]


def test_logins_begin_again_after_the_horizon_and_older_ones_are_not_added() -> None:
    # given
    def login(guest: str, at_ms: int) -> LoginWrite:
        return LoginWrite("user:u", "clicks/0", 0, guest, at_ms)

    # then
    later = BEGAN_MS + HORIZON_MS
    assert len(read_rows(add_logins(b"", [login("a", BEGAN_MS), login("b", later)]))) == 2
    assert len(read_rows(add_logins(b"", [login("a", BEGAN_MS), login("b", later + 1)]))) == 1
    assert len(read_rows(add_logins(b"", [login("b", later + 1), login("a", BEGAN_MS)]))) == 1


@pytest.mark.parametrize(
    "record", [b"", b"x", write_rows([("g", 1, 1)])[:-1], b"\x92\x02\x91\x93\xa1g\x01\x01", b"\x92\x01\x90"]
)
def test_bytes_that_are_no_logins_are_told(record: bytes) -> None:
    assert find_logins_defect(record)
    with pytest.raises(BadProfile):
        read_rows(record)
