"""Concept drift changes the simulated shop from its start on, and not before."""

from collections.abc import Iterable

from contract.events.model import Order, Product
from demo.simulator.concept_drift import ConceptDrift
from demo.simulator.records import SourceRecord
from demo.simulator.shop import ShopSimulator


def simulate_history(days: float, drift: ConceptDrift | None) -> list[SourceRecord]:
    return list(ShopSimulator(5, users=40, items=64, drift=drift).simulate_history(days))


def find_products(records: Iterable[SourceRecord]) -> list[Product]:
    return [record.event for record in records if isinstance(record.event, Product)]


def test_records_before_the_start_are_the_same_as_without_drift() -> None:
    assert simulate_history(2, ConceptDrift(seed=1, start_days=2)) == simulate_history(2, None)


def test_the_seed_determines_the_drift() -> None:
    first, same_seed, other_seed = (simulate_history(2, ConceptDrift(seed=seed, start_days=1)) for seed in (1, 1, 2))

    assert first == same_seed
    assert first != other_seed


def test_each_day_brings_new_items_and_new_prices() -> None:
    records = simulate_history(3, ConceptDrift(seed=1, start_days=1))

    initial_prices = {product.item_id: product.price for product in find_products(records)[:64]}
    later = find_products(records)[64:]
    assert {product.item_id for product in later} - set(initial_prices)
    assert any(initial_prices.get(product.item_id, product.price) != product.price for product in later)


def test_fraud_rings_change_their_payment_method() -> None:
    drift = ConceptDrift(seed=1, start_days=0)
    records = simulate_history(8, drift)

    orders = [record.event for record in records if isinstance(record.event, Order)]
    payment_methods = {
        order.payment_method for order in orders if order.device_id and order.device_id.startswith("xring")
    }
    assert len(payment_methods) > 1
