"""How the shop's world changes when it is asked to, and that it does not when it is not."""

from collections.abc import Iterable

from contract.events import Order, Product
from demo.simulator.concept_drift import ConceptDrift
from demo.simulator.records import SourceRecord
from demo.simulator.shop import ShopSimulator


def simulate_history(days: float, drift: ConceptDrift | None) -> list[SourceRecord]:
    return list(ShopSimulator(5, users=40, items=64, drift=drift).simulate_history(days))


def find_products(records: Iterable[SourceRecord]) -> list[Product]:
    return [record.event for record in records if isinstance(record.event, Product)]


def test_until_it_begins_the_world_is_as_without_drift() -> None:
    assert simulate_history(2, ConceptDrift(seed=1, start_days=2)) == simulate_history(2, None)


def test_equal_seeds_drift_alike_and_others_elsewhere() -> None:
    one, again, other = (simulate_history(2, ConceptDrift(seed=seed, start_days=1)) for seed in (1, 1, 2))

    assert one == again
    assert one != other


def test_each_day_items_are_new_and_prices_move() -> None:
    records = simulate_history(3, ConceptDrift(seed=1, start_days=1))

    opened = {product.item_id: product.price for product in find_products(records)[:64]}
    later = find_products(records)[64:]
    assert {product.item_id for product in later} - set(opened)
    assert any(opened.get(product.item_id, product.price) != product.price for product in later)


def test_rings_change_how_they_pay() -> None:
    drift = ConceptDrift(seed=1, start_days=0)
    records = simulate_history(8, drift)

    orders = [record.event for record in records if isinstance(record.event, Order)]
    paid = {order.payment_method for order in orders if order.device_id and order.device_id.startswith("xring")}
    assert len(paid) > 1
