"""How the shop's world changes when it is asked to, and that it does not when it is not."""

from collections.abc import Iterable

from contract.events import Order, Product
from demo.drift import Drift
from demo.happenings import Happening
from demo.shop import Shop


def history(days: float, drift: Drift | None) -> list[Happening]:
    return list(Shop(5, people=40, items=64, drift=drift).history(days))


def products(happenings: Iterable[Happening]) -> list[Product]:
    return [happening.event for happening in happenings if isinstance(happening.event, Product)]


def test_until_it_begins_the_world_is_as_without_drift() -> None:
    assert history(2, Drift(seed=1, begins_days=2)) == history(2, None)


def test_equal_seeds_drift_alike_and_others_elsewhere() -> None:
    one, again, other = (history(2, Drift(seed=seed, begins_days=1)) for seed in (1, 1, 2))

    assert one == again
    assert one != other


def test_each_day_items_are_new_and_prices_move() -> None:
    happenings = history(3, Drift(seed=1, begins_days=1))

    opened = {product.item_id: product.price for product in products(happenings)[:64]}
    later = products(happenings)[64:]
    assert {product.item_id for product in later} - set(opened)
    assert any(opened.get(product.item_id, product.price) != product.price for product in later)


def test_rings_change_how_they_pay() -> None:
    drift = Drift(seed=1, begins_days=0)
    happenings = history(8, drift)

    orders = [happening.event for happening in happenings if isinstance(happening.event, Order)]
    paid = {order.payment_method for order in orders if order.device_id and order.device_id.startswith("xring")}
    assert len(paid) > 1
