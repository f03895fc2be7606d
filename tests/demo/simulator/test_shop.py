"""The simulated shop: the same for the same seed, in the order of its time, and as mixed as a real one."""

from collections import Counter

import pytest

from contract.errors import BadEvent
from contract.events import Click, Impression, Label, Order, decode
from demo.simulator.malformed import MALFORMED_RECORDS
from demo.simulator.records import SourceRecord
from demo.simulator.sessions import HomePage
from demo.simulator.shop import ShopSimulator
from demo.simulator.users import User

HISTORY_DAYS, LIVE_DAYS = 8.0, 2.0


def make_home_page(user: User) -> HomePage:
    """The same items for everybody, under a list id that names the user."""
    return HomePage(f"ours-{user.user_id}", tuple(f"i{n:04d}" for n in range(20)))


def simulate_all(seed: int) -> list[SourceRecord]:
    shop = ShopSimulator(seed)
    return [*shop.simulate_history(HISTORY_DAYS), *shop.simulate_live(make_home_page, LIVE_DAYS)]


def find_clicked_lists(records: list[SourceRecord]) -> set[str | None]:
    """The recommendation lists that clicks name."""
    return {e.recommendation_id for record in records if isinstance(e := record.event, Click)}


@pytest.fixture(scope="module")
def history() -> list[SourceRecord]:
    return list(ShopSimulator(20111209).simulate_history(HISTORY_DAYS))


def test_the_same_seed_gives_the_same_happenings(seed: int) -> None:
    assert simulate_all(seed) == simulate_all(seed)


def test_another_seed_gives_another_shop(seed: int) -> None:
    assert simulate_all(seed) != simulate_all(seed + 1)


def test_what_was_live_depends_on_the_lists_that_were_shown(seed: int) -> None:
    # Given the same history
    shop, other = ShopSimulator(seed), ShopSimulator(seed)
    assert list(shop.simulate_history(1)) == list(other.simulate_history(1))

    # When one of them shows our lists and the other has none to show
    ours, theirs = list(shop.simulate_live(make_home_page, 1)), list(other.simulate_live(lambda user: None, 1))

    # Then clicks on ours name the list that they were found in
    assert any(name and name.startswith("ours-") for name in find_clicked_lists(ours))
    assert find_clicked_lists(theirs) == {None}


def test_time_never_goes_back_and_live_begins_where_history_ended(seed: int) -> None:
    # Given
    shop = ShopSimulator(seed)

    # When
    history, live = list(shop.simulate_history(HISTORY_DAYS)), list(shop.simulate_live(make_home_page, LIVE_DAYS))

    # Then
    times = [record.ts_ms for record in history + live]
    assert times == sorted(times)
    assert history[-1].ts_ms < live[0].ts_ms + 1


def test_whatever_is_not_malformed_decodes_to_the_event_that_was_meant(seed: int) -> None:
    for record in simulate_all(seed):
        if not record.reason:
            assert decode(record.kind, record.value) == record.event
            assert record.ts_ms == decode(record.kind, record.value).ts_ms


def test_each_malformed_record_has_exactly_its_reason() -> None:
    for kind, value, reason in MALFORMED_RECORDS:
        with pytest.raises(BadEvent) as found:
            decode(kind, value)
        assert found.value.reason == reason


def test_malformed_records_come_in_the_live_part_alone(seed: int) -> None:
    # Given
    shop = ShopSimulator(seed)

    # When
    history, live = list(shop.simulate_history(1)), list(shop.simulate_live(make_home_page, LIVE_DAYS))

    # Then
    assert not any(record.reason for record in history)
    assert 1 / 200 < sum(bool(record.reason) for record in live) / len(live) < 1 / 100


def test_event_ids_are_unique(seed: int) -> None:
    # When
    ids = [h.event.event_id for h in simulate_all(seed) if not isinstance(h.event, bytes)]

    # Then
    assert len(ids) == len(set(ids))


def test_clicks_fall_with_the_place_and_follow_taste(history: list[SourceRecord]) -> None:
    # Given
    shown, clicked = Counter[int](), Counter[int]()
    favourites = {p.user_id: max(p.preferences, key=lambda c: p.preferences[c]) for p in ShopSimulator(20111209).users}
    categories = {e.item_id: e.category for h in history if (e := h.event) and h.kind == "products"}  # type: ignore[union-attr]

    # When
    of_favourite = seen_of_favourite = 0
    for record in history:
        match record.event:
            case Impression(surface="home", items=items, user_id=user_id):
                shown.update(range(len(items)))
                seen_of_favourite += sum(categories[item] == favourites.get(user_id) for item in items)
            case Click(surface="home", rank=int(rank), item_id=item_id, user_id=user_id):
                clicked[rank] += 1
                of_favourite += categories[item_id] == favourites.get(user_id)

    # Then
    assert clicked[0] / shown[0] > 1.3 * clicked[7] / shown[7]
    overall = clicked.total() / shown.total()
    assert 0.03 < overall < 0.3
    assert of_favourite / seen_of_favourite > 1.5 * overall


def test_a_small_share_of_orders_is_fraud_and_becomes_known_later(seed: int) -> None:
    # Given
    records = simulate_all(seed)
    orders = {e.event_id: e for h in records if isinstance(e := h.event, Order)}

    # When
    labels = [e for h in records if isinstance(e := h.event, Label)]
    bad = {label.judged_event_id for label in labels if label.value == 1}
    good = {label.judged_event_id for label in labels if label.value == 0}

    # Then
    assert 0.02 < len(bad) / len(orders) < 0.15
    assert len(good) > len(bad)
    assert not bad & good
    assert all(label.ts_ms > orders[label.judged_event_id].ts_ms for label in labels)
    assert all(label.user_id == orders[label.judged_event_id].user_id for label in labels)


def test_a_ring_shares_devices_and_cards_and_orders_dearly(seed: int) -> None:
    # Given
    records = simulate_all(seed)
    bad = {e.judged_event_id for h in records if isinstance(e := h.event, Label) and e.value == 1}
    orders = [e for h in records if isinstance(e := h.event, Order)]

    # When
    fraud = [order for order in orders if order.event_id in bad]
    honest = [order for order in orders if order.event_id not in bad and int(order.user_id[1:]) < 5_000]

    # Then
    users_of_cards = {(order.card_id, order.user_id) for order in fraud}
    assert len(users_of_cards) > 2 * len({card for card, _ in users_of_cards})
    assert sum(o.amount for o in fraud) / len(fraud) > 1.4 * sum(o.amount for o in honest) / len(honest)


def test_some_optional_fields_are_missing(history: list[SourceRecord]) -> None:
    orders = [e for h in history if isinstance(e := h.event, Order)]
    products = [h.event for h in history if h.kind == "products"]
    for missing, of in (
        (sum(order.device_id is None for order in orders), len(orders)),
        (sum(order.shipping_country is None for order in orders), len(orders)),
        (sum(getattr(product, "category", "") is None for product in products), len(products)),
    ):
        assert 0 < missing < 0.2 * of
