"""The simulated shop: deterministic, ordered by time, and with the variety of a real shop."""

from collections import Counter
from statistics import fmean

import pytest

from contract.errors import BadEvent
from contract.events.model import Click, Impression, Label, Order, Product
from contract.events.reading import decode
from demo.simulator.malformed import MALFORMED_RECORDS
from demo.simulator.records import SourceRecord
from demo.simulator.sessions import HomePage
from demo.simulator.shop import ShopSimulator
from demo.simulator.users import User

HISTORY_DAYS, LIVE_DAYS = 8.0, 2.0


def make_home_page(user: User) -> HomePage:
    """The same items for every user, with a list id that names the user."""
    return HomePage(f"ours-{user.user_id}", tuple(f"i{n:04d}" for n in range(20)))


def simulate_all(seed: int) -> list[SourceRecord]:
    shop = ShopSimulator(seed)
    return [*shop.simulate_history(HISTORY_DAYS), *shop.simulate_live(make_home_page, LIVE_DAYS)]


def find_clicked_lists(records: list[SourceRecord]) -> set[str | None]:
    """The ids of recommendation lists in clicks."""
    return {event.recommendation_id for record in records if isinstance(event := record.event, Click)}


@pytest.fixture(scope="module")
def history() -> list[SourceRecord]:
    return list(ShopSimulator(20111209).simulate_history(HISTORY_DAYS))


def test_the_same_seed_gives_the_same_records(seed: int) -> None:
    assert simulate_all(seed) == simulate_all(seed)


def test_another_seed_gives_other_records(seed: int) -> None:
    assert simulate_all(seed) != simulate_all(seed + 1)


def test_live_clicks_name_the_list_that_was_shown(seed: int) -> None:
    # given the same history
    shop, other = ShopSimulator(seed), ShopSimulator(seed)
    assert list(shop.simulate_history(1)) == list(other.simulate_history(1))

    # when one shop shows our lists and the other has none
    with_lists = list(shop.simulate_live(make_home_page, 1))
    without_lists = list(other.simulate_live(lambda user: None, 1))

    # then clicks on our lists carry their ids
    assert any(name and name.startswith("ours-") for name in find_clicked_lists(with_lists))
    assert find_clicked_lists(without_lists) == {None}


def test_records_are_in_order_of_time_and_live_continues_history(seed: int) -> None:
    # given
    shop = ShopSimulator(seed)

    # when
    history, live = list(shop.simulate_history(HISTORY_DAYS)), list(shop.simulate_live(make_home_page, LIVE_DAYS))

    # then
    times = [record.ts_ms for record in history + live]
    assert times == sorted(times)
    assert history[-1].ts_ms < live[0].ts_ms + 1


def test_a_record_that_is_not_malformed_decodes_to_its_event(seed: int) -> None:
    for record in simulate_all(seed):
        if not record.reason:
            assert decode(record.kind, record.value) == record.event
            assert record.ts_ms == decode(record.kind, record.value).ts_ms


def test_each_malformed_record_is_rejected_for_its_reason() -> None:
    for kind, value, reason in MALFORMED_RECORDS:
        with pytest.raises(BadEvent) as error:
            decode(kind, value)
        assert error.value.reason == reason


def test_only_the_live_phase_has_malformed_records(seed: int) -> None:
    # given
    shop = ShopSimulator(seed)

    # when
    history, live = list(shop.simulate_history(1)), list(shop.simulate_live(make_home_page, LIVE_DAYS))

    # then
    assert not any(record.reason for record in history)
    assert 1 / 200 < sum(bool(record.reason) for record in live) / len(live) < 1 / 100


def test_event_ids_are_unique(seed: int) -> None:
    # when
    ids = [record.event.event_id for record in simulate_all(seed) if not isinstance(record.event, bytes)]

    # then
    assert len(ids) == len(set(ids))


def test_click_rates_fall_with_rank_and_rise_with_preference(history: list[SourceRecord]) -> None:
    # given
    shown, clicked = Counter[int](), Counter[int]()
    favourites = {
        user.user_id: max(user.preferences, key=user.preferences.__getitem__) for user in ShopSimulator(20111209).users
    }
    categories = {event.item_id: event.category for record in history if isinstance(event := record.event, Product)}

    # when
    favourite_clicks = favourite_impressions = 0
    for record in history:
        match record.event:
            case Impression(surface="home", items=items, user_id=user_id):
                shown.update(range(len(items)))
                favourite_impressions += sum(categories[item] == favourites.get(user_id) for item in items)
            case Click(surface="home", rank=int(rank), item_id=item_id, user_id=user_id):
                clicked[rank] += 1
                favourite_clicks += categories[item_id] == favourites.get(user_id)

    # then
    assert clicked[0] / shown[0] > 1.3 * clicked[7] / shown[7]
    overall = clicked.total() / shown.total()
    assert 0.03 < overall < 0.3
    assert favourite_clicks / favourite_impressions > 1.5 * overall


def test_a_small_share_of_orders_is_fraud_and_labelled_later(seed: int) -> None:
    # given
    records = simulate_all(seed)
    orders = {event.event_id: event for record in records if isinstance(event := record.event, Order)}

    # when
    labels = [event for record in records if isinstance(event := record.event, Label)]
    fraud_ids = {label.judged_event_id for label in labels if label.value == 1}
    honest_ids = {label.judged_event_id for label in labels if label.value == 0}

    # then
    assert 0.02 < len(fraud_ids) / len(orders) < 0.15
    assert len(honest_ids) > len(fraud_ids)
    assert not fraud_ids & honest_ids
    assert all(label.ts_ms > orders[label.judged_event_id].ts_ms for label in labels)
    assert all(label.user_id == orders[label.judged_event_id].user_id for label in labels)


def test_fraud_rings_share_cards_and_order_expensive_items(seed: int) -> None:
    # given
    records = simulate_all(seed)
    labels = [event for record in records if isinstance(event := record.event, Label)]
    fraud_ids = {label.judged_event_id for label in labels if label.value == 1}
    orders = [event for record in records if isinstance(event := record.event, Order)]

    # when
    fraud = [order for order in orders if order.event_id in fraud_ids]
    honest = [order for order in orders if order.event_id not in fraud_ids and int(order.user_id[1:]) < 5_000]

    # then
    users_of_cards = {(order.card_id, order.user_id) for order in fraud}
    assert len(users_of_cards) > 2 * len({card for card, _ in users_of_cards})
    assert fmean(order.amount for order in fraud) > 1.4 * fmean(order.amount for order in honest)


def test_some_optional_fields_are_missing(history: list[SourceRecord]) -> None:
    orders = [event for record in history if isinstance(event := record.event, Order)]
    products = [event for record in history if isinstance(event := record.event, Product)]
    for missing, count in (
        (sum(order.device_id is None for order in orders), len(orders)),
        (sum(order.shipping_country is None for order in orders), len(orders)),
        (sum(product.category is None for product in products), len(products)),
    ):
        assert 0 < missing < 0.2 * count
