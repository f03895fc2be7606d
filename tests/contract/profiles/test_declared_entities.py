"""Declared entities: named by attributes or fields, folded as the oracle says, and unseen by built-in kinds."""

import hashlib
import itertools
import random
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pytest
from msgspec.structs import replace

from contract.events.model import Click, Erasure, Event, Judgement, Line, Order, Search, UserEvent
from contract.features.declaration import Feature, FeatureSet
from contract.features.encoder import Encoder, list_entities
from contract.features.reading import declare
from contract.hashing import hash_id
from contract.profiles.entity_kinds import BUILT_IN_KINDS, DeclaredEntity, EntityKinds
from contract.profiles.entity_updates import Arrival, extract_updates, to_updates
from contract.profiles.erasures import NO_ERASURES, Erasures
from contract.profiles.link_masks import mask_erased_links
from contract.profiles.record import ENTITY_KINDS, RECORD
from contract.profiles.store import FoldedBatch, InMemoryProfileStore, fold
from testkit.oracle.feeder import read_slices, split_batches
from testkit.oracle.logs import make_random_log
from testkit.oracle.profiles import ProfileOracle
from testkit.oracle.records import find_differences

EMAIL: Final = DeclaredEntity("email", "event.attributes.email", ignore_case=True)
STORE: Final = DeclaredEntity("store", "event.attributes.store")
PAYMENT: Final = DeclaredEntity("payment", "event.payment_method")
KINDS: Final = EntityKinds((EMAIL, STORE, PAYMENT))
NOW_MS: Final = 1_700_000_000_000


def name_entity(kind: str, text: str) -> str:
    return f"{kind}:{hashlib.blake2b(text.encode(), digest_size=12).hexdigest()}"


def make_order(number: int = 0, **changes: Any) -> Order:
    whole: dict[str, Any] = {
        "event_id": f"o{number}",
        "ts_ms": NOW_MS + number,
        "user_id": f"u{number}",
        "lines": (Line(item_id="i", quantity=1, unit_price=2.0),),
        "amount": 8.0,
        "currency": "EUR",
        "payment_method": "card",
    }
    return Order(**{**whole, **changes})


def give_attributes(arrivals: Sequence[Arrival], rng: random.Random) -> list[Arrival]:
    """The log with emails and stores that few users share; judgements name some of them."""
    return [arrival._replace(event=give_event_attributes(arrival.event, rng)) for arrival in arrivals]


def give_event_attributes(event: Event, rng: random.Random) -> Event:
    if isinstance(event, Judgement):
        return replace(event, entities=(*event.entities, name_entity("email", "a@x"), "ghost:1"))
    assert isinstance(event, UserEvent)
    email = rng.choice(("a@x", " A@X ", "b@x", "", None, 4.5))
    return rng.choice((event, replace(event, attributes={"email": email, "store": rng.choice((7, 7.0, "8", [7]))})))


def name_email(event: Event) -> str | None:
    email = (getattr(event, "attributes", None) or {}).get("email")
    return name_entity("email", email.strip().lower()) if isinstance(email, str) and email else None


def name_store(event: Event) -> str | None:
    store = (getattr(event, "attributes", None) or {}).get("store")
    return None if store is None or isinstance(store, list) else name_entity("store", str(int(store)))


def name_payment(event: Event) -> str | None:
    return name_entity("payment", event.payment_method) if isinstance(event, Order) else None


def feed(arrivals: Sequence[Arrival], kinds: EntityKinds, size: int) -> dict[str, dict[str, bytes]]:
    store, entities = InMemoryProfileStore(), dict[str, None]()
    for batch in split_batches(arrivals, itertools.repeat(size)):
        updates = to_updates(batch, kinds=kinds)
        store.merge(fold(store.read(updates.entities), updates).slice_writes(), {}, {})
        entities |= dict.fromkeys(updates.entities)
    return read_slices(store, list(entities))


def test_declared_entities_are_folded_as_the_oracle_says_and_built_in_ones_keep_their_bytes(seed: int) -> None:
    # given a log with attributes
    arrivals = give_attributes(make_random_log(seed, 600), random.Random(seed))
    oracle = ProfileOracle(declared={"email": name_email, "store": name_store, "payment": name_payment})
    for arrival in arrivals:
        oracle.add(arrival.source, arrival.offset, arrival.event)
    # when it is folded with and without declared kinds
    with_declared, without = feed(arrivals, KINDS, 97), feed(arrivals, BUILT_IN_KINDS, 97)
    # then
    assert find_differences(oracle, with_declared) == []
    declared = {entity for entity in with_declared if entity.partition(":")[0] not in ENTITY_KINDS}
    assert {entity.partition(":")[0] for entity in declared} == {"email", "store", "payment"}
    assert {entity: slices for entity, slices in with_declared.items() if entity not in declared} == without
    assert feed(arrivals, KINDS, 1) == with_declared


def test_addresses_of_one_network_are_one_declared_entity() -> None:
    net = DeclaredEntity("net", "event.ip")
    assert net.identify("2001:db8::1") == net.identify("2001:0db8:0:0:9::2") != net.identify("2001:db8:0:1::1")
    assert net.identify("203.0.113.9") == net.identify("::ffff:203.0.113.9") != net.identify("203.0.113.10")
    assert net.identify("....") is None


@pytest.mark.parametrize(
    ("left", "right", "are_one"),
    [
        ("jane@x.com", " Jane@X.com", True),
        ("1  Main Street", "1 main street", True),
        ("Zu\u0308rich", "Z\u00fcrich", True),
        (7, "7", True),
        (7, 7.0, True),
        ("7", "07", False),
        ("a:b", "a", False),
    ],
)
def test_spellings_of_one_entity_meet(left: object, right: object, are_one: bool) -> None:
    assert (EMAIL.identify(left) == EMAIL.identify(right)) is are_one


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "  ",
        True,
        1.5,
        [1.0],
        [],
        2.0**60,
        float("nan"),
        " NULL",
        "undefined",
        "00000000-0000-0000-0000-000000000000",
    ],
)
def test_what_names_nobody_is_no_entity(value: object) -> None:
    assert EMAIL.identify(value) is None


def test_no_text_of_an_attribute_is_in_an_entity() -> None:
    event = make_order(attributes={"email": "jane:{doe}@example.com"})
    (entity,) = (entity for entity, _ in extract_updates(event, KINDS) if entity.startswith("email:"))
    assert "jane" not in entity
    assert entity.removeprefix("email:").isalnum()


def test_declared_entities_come_last_with_the_amount_of_the_user() -> None:
    event = make_order(device_id="d", attributes={"store": 7, "email": "j"})
    assert extract_updates(event, KINDS)[-4:] == [
        ("item:i", 200),
        (name_entity("email", "j"), 800),
        (name_entity("store", "7"), 800),
        (name_entity("payment", "card"), 800),
    ]


def fold_events(*events: Event) -> FoldedBatch:
    arrivals = [Arrival("orders/0", number, event, "shop.orders", 0) for number, event in enumerate(events)]
    updates = to_updates(arrivals, kinds=KINDS)
    return fold(InMemoryProfileStore().read(updates.entities), updates)


def declare_feature(source: str, kind: str = "number") -> Feature:
    return declare(Feature("x", "order", kind, source), {"email": EMAIL})  # type: ignore[arg-type]


def test_a_feature_reads_the_profile_of_a_declared_entity() -> None:
    # given three users who order with one email, and one without any
    emails = ["j@x", "J@x", "j@x ", None]
    folded = fold_events(*(make_order(n, attributes={"email": email}) for n, email in enumerate(emails)))
    for aggregate, expected in (("orders.count_1d", [0, 1, 2]), ("orders.sum", None), ("first_links", [0, 1, 2])):
        source = f"profile.email.{aggregate if expected else 'orders.sum_1d'}"
        # when
        block = Encoder(FeatureSet([declare_feature(source)])).encode_before(folded, range(4), ["order"])["order"]
        # then
        np.testing.assert_allclose(block.numbers[:3, 0], expected or [0, 800, 1600])
        assert np.isnan(block.numbers[3, 0])
    assert list_entities(folded, [0])[0][-2] == name_entity("email", "j@x")


def test_a_feature_of_a_declared_entity_is_unknown_where_only_the_user_is_read() -> None:
    # given a list's features, which are encoded after the batch
    click = Click(event_id="c", ts_ms=NOW_MS, user_id="u", item_id="i", attributes={"email": "j"})
    folded = fold_events(click)
    features = [replace(declare_feature("profile.email.clicks.count"), group="user")]
    features.append(replace(declare_feature("profile.email.recent", "sequence"), name="y", group="user"))
    # when
    block = Encoder(FeatureSet(features)).encode_after(folded, [click], ["user"])["user"]
    # then
    assert np.isnan(block.numbers).all()
    assert not block.ids.any()


def test_the_digest_of_a_feature_changes_with_its_entity() -> None:
    feature, other = declare_feature("profile.email.first_links"), DeclaredEntity("email", "event.attributes.mail")
    assert feature.digest != declare(replace(feature, entity=""), {"email": other}).digest
    assert feature.digest != replace(feature, entity="").digest


def test_a_search_updates_a_declared_entity() -> None:
    search = Search(event_id="s", ts_ms=1, user_id="u", query="q", attributes={"store": "7"})
    assert extract_updates(search, KINDS) == [("user:u", 0), (name_entity("store", "7"), 0)]
    assert extract_updates(search) == [("user:u", 0)]


def test_an_erased_user_is_masked_in_the_profile_of_a_declared_entity() -> None:
    # given an order of a user who is erased later
    order = make_order(attributes={"email": "j@x"})
    erasures = Erasures([Erasure(event_id="f", ts_ms=order.ts_ms, user_id=order.user_id)])
    arrivals, entity = [Arrival("orders/0", 0, order)], name_entity("email", "j@x")

    def fold_order(known: Erasures) -> np.ndarray:
        updates = to_updates(arrivals, erasures=known, kinds=KINDS)
        writes = fold([{} for _ in updates.entities], updates).slice_writes()
        return np.frombuffer(writes[entity]["orders/0"], RECORD).copy()

    # when the links are masked after the fold
    record = fold_order(NO_ERASURES)
    assert hash_id("user:u0") in record["links"]["id"]
    changed = mask_erased_links(record, erasures.to_erased_ids())
    # then it is as if the erasure had been known
    assert changed.all()
    assert record.tobytes() == fold_order(erasures).tobytes()
    assert hash_id("user:u0") not in record["links"]["id"]
