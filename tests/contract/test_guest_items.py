"""Items of guests in the histories of those who log in: what they did before, and never what another one does later."""

import numpy as np
import pytest

from contract.events.guests import to_guest_user
from contract.events.model import Click, Event
from contract.hashing import item_hash
from contract.profiles.entity_updates import Arrival, to_updates
from contract.profiles.guest_items import (
    GUESTS_READ_MAX,
    OF_GUEST,
    OF_NO_ONE,
    add_pending,
    find_guests,
    find_owner,
    list_distinct,
    merge_guests,
)
from contract.profiles.histories import load_histories
from contract.profiles.logins import GUEST_USERS_MAX, SHARED
from contract.profiles.store import InMemoryProfileStore, fold
from testkit.oracle.feeder import ProfileFeeder

NOW_S = 1_700_000_000
ITEMS = {item_hash(f"i{n}"): f"i{n}" for n in range(400)}


class GuestShop:
    """A shop on one device `g`, unless another one is named; time passes by a minute with each event."""

    def __init__(self) -> None:
        self.store, self.events = InMemoryProfileStore(), list[Event]()
        self.feeder = ProfileFeeder(self.store)

    def act(self, item: str, user: str = "", guest: str | None = "g", minute: int | None = None) -> None:
        """A click of a user on an item; without a user of the guest."""
        at_s = NOW_S + 60 * (len(self.events) if minute is None else minute)
        user_id = user or to_guest_user(guest or "")
        click = Click(event_id="c", ts_ms=1000 * at_s, user_id=user_id, guest_id=guest, item_id=item)
        source = f"clicks/{len(user_id) % 2}"
        self.events.append(click)
        self.feeder.feed([Arrival(source, len(self.events), click)])

    def read(self, user_id: str) -> list[str]:
        """The items of a user as lists know them, newest first."""
        own = self.store.read_histories([f"user:{user_id}"])
        guests = find_guests(own, [user_id])
        of_guests = self.store.read_histories([f"user:{guest}" for guest in list_distinct(guests)])
        items = merge_guests(own, [user_id], guests, of_guests).latest.items[0]
        return [ITEMS[item] for item in items.tolist() if item]


def test_what_a_guest_did_goes_over_to_the_user_at_the_login() -> None:
    # given
    shop = GuestShop()
    shop.act("i1")
    shop.act("i2")
    assert shop.read("guest:g") == ["i2", "i1"]
    # when
    shop.act("i3", "anna")
    # then
    assert shop.read("anna") == ["i3", "i2", "i1"]
    assert shop.read("guest:g") == []


def test_what_another_person_does_on_the_device_later_stays_out_of_the_first_ones_history() -> None:
    # given
    shop = GuestShop()
    shop.act("i1")
    shop.act("i2", "anna")
    # when
    shop.act("i3")
    # then
    assert shop.read("anna") == ["i2", "i1"]
    assert shop.read("guest:g") == ["i3"]


def test_two_users_of_one_device_each_get_what_happened_since_the_login_before() -> None:
    # given
    shop = GuestShop()
    shop.act("i1")
    shop.act("i2", "anna")
    shop.act("i3")
    shop.act("i4", "bert")
    # then
    assert shop.read("anna") == ["i2", "i1"]
    assert shop.read("bert") == ["i4", "i3"]
    # when the first one comes back, what the other one did before is neither given to the first one
    shop.act("i5")
    shop.act("i6", "anna")
    assert shop.read("anna") == ["i6", "i5", "i2", "i1"]
    assert shop.read("bert") == ["i4"]


def test_a_late_login_of_another_user_takes_what_happened_before_it() -> None:
    # given
    shop = GuestShop()
    shop.act("i1", minute=1)
    shop.act("i2", "anna", minute=5)
    assert shop.read("anna") == ["i2", "i1"]
    # when a login from in between arrives late, twice
    shop.act("i3", "bert", minute=3)
    shop.act("i3", "bert", minute=3)
    # then
    assert shop.read("anna") == ["i2"]
    assert shop.read("bert") == ["i3", "i3", "i1"]


def test_a_user_has_the_items_of_the_latest_guests() -> None:
    # given
    shop, guests = GuestShop(), GUESTS_READ_MAX + 2
    for n in range(guests):
        shop.act(f"i{n}", guest=f"g{n}")
        shop.act("i99", "anna", guest=f"g{n}")
    # then
    assert [item for item in shop.read("anna") if item != "i99"] == [f"i{n}" for n in range(guests - 1, 1, -1)]


def test_a_guest_id_that_many_users_share_gives_no_one_anything() -> None:
    # given
    shop = GuestShop()
    for n in range(GUEST_USERS_MAX + 1):
        shop.act(f"i{n}")
        shop.act("i99", f"user-{n:02}")
    # then
    assert shop.read("user-03") == ["i99"]
    assert len(shop.read("guest:g")) == GUEST_USERS_MAX + 1


def test_a_guest_with_the_id_of_a_user_is_another_one() -> None:
    # given
    shop = GuestShop()
    shop.act("i1", "anna", guest=None)
    shop.act("i2", guest="anna")
    # then
    assert (shop.read("anna"), shop.read("guest:anna")) == (["i1"], ["i2"])
    # when the user logs in on it
    shop.act("i3", "anna", guest="anna")
    assert shop.read("anna") == ["i3", "i2", "i1"]


def test_a_guest_of_a_guest_and_a_guest_of_another_user_are_not_followed() -> None:
    # given
    shop = GuestShop()
    shop.act("i1", guest="g1")
    shop.act("i2", "guest:g2", guest="g1")
    shop.act("i3", "anna", guest="g1")
    shop.act("i4", guest="g3")
    shop.act("i5", "anna", guest="g3")
    shop.act("i6", "bert", guest="g1")
    # then
    assert shop.read("guest:g2") == ["i2"]
    assert shop.read("bert") == ["i6"]


@pytest.mark.parametrize(
    ("times", "seen_ms", "owner"),
    [
        ({}, 5, OF_GUEST),
        ({"a": (10, 10)}, 10, "a"),
        ({"a": (10, 10)}, 11, OF_GUEST),
        ({"a": (10, 10), "b": (20, 20)}, 5, "a"),
        ({"a": (10, 10), "b": (20, 20)}, 15, "b"),
        ({"a": (10, 30), "b": (20, 20)}, 5, "a"),
        ({"a": (10, 30), "b": (20, 20)}, 15, OF_NO_ONE),
        ({"a": (10, 30), "b": (20, 20)}, 25, "a"),
        ({"a": (10, 30)}, 15, "a"),
        ({"a": (10, 10), "b": (10, 10)}, 5, OF_NO_ONE),
        ({SHARED: (10, 10)}, 5, OF_GUEST),
        ({f"{n}": (n, n) for n in range(10, 11 + GUEST_USERS_MAX)}, 5, OF_GUEST),
    ],
)
def test_an_act_belongs_to_the_user_of_the_next_login(
    times: dict[str, tuple[int, int]], seen_ms: int, owner: str
) -> None:
    assert find_owner(times, seen_ms) == owner


def test_a_login_and_the_guests_items_of_a_batch_count_before_they_are_merged() -> None:
    # given
    click = Click(event_id="c1", ts_ms=1000 * NOW_S, user_id="guest:g", guest_id="g", item_id="i1")
    login = Click(event_id="c2", ts_ms=1000 * NOW_S + 60_000, user_id="anna", guest_id="g", item_id="i2")
    updates = to_updates([Arrival("clicks/0", 0, click), Arrival("clicks/0", 1, login)])
    pending = fold([{} for _ in updates.entities], updates).slice_writes()
    # when
    own = add_pending(load_histories([{}]), ["user:anna"], pending)
    guests = find_guests(own, ["anna"])
    of_guests = add_pending(load_histories([{}]), ["user:guest:g"], pending)
    known = merge_guests(own, ["anna"], guests, of_guests)
    # then
    assert guests == [["guest:g"]]
    assert [ITEMS[item] for item in known.latest.items[0].tolist() if item] == ["i2", "i1"]
    assert known.newest.tolist() == [item_hash("i2")]
    assert np.array_equal(known.latest.seen_s[0, :2], [NOW_S + 60, NOW_S])
