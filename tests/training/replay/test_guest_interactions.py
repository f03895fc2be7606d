"""Interactions of guests: with the user of the next login, as in lists."""

from contract.events.model import Click
from training.replay.guest_interactions import GuestInteractions


def login(user: str, guest: str, ts_ms: int) -> Click:
    return Click(event_id="c", ts_ms=ts_ms, user_id=user, guest_id=guest, item_id="i")


def test_interactions_of_guests_have_the_user_of_the_next_login() -> None:
    # given
    guests = GuestInteractions()
    for event in (login("anna", "g", 20), login("bert", "g", 40), login("guest:g", "g", 5)):
        guests.add(event)
    done = [("guest:g", f"i{ts_ms}", ts_ms, "click") for ts_ms in (10, 30, 50)]
    # when
    assigned = guests.assign([*done, ("anna", "i", 1, "order"), ("guest:other", "i", 1, "click")])
    # then
    assert [user for user, *_ in assigned] == ["anna", "bert", "guest:g", "anna", "guest:other"]
    assert [interaction[1:] for interaction in assigned[:3]] == [interaction[1:] for interaction in done]


def test_interactions_between_two_logins_of_one_user_stay_with_the_guest_where_another_one_logged_in() -> None:
    # given
    guests = GuestInteractions()
    for event in (login("anna", "g", 10), login("bert", "g", 20), login("anna", "g", 30)):
        guests.add(event)
    # then
    assert guests.assign([("guest:g", "i", 15, "click")]) == [("guest:g", "i", 15, "click")]
