"""A shop's own fields from the bytes of an order to the scores of a served bundle, without code: all in one process."""

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pytest

from contract.bundle import read_bundle
from contract.events.model import Label
from contract.features.columns import encode_text
from contract.features.declaration import FeatureSet
from contract.features.encoder import Encoder
from contract.hashing import hash_id
from contract.joining.joiner import Joiner
from contract.messages import Example, ScoredRow, read_example, read_scored_row, to_msgpack
from contract.profiles.entity_updates import Arrival, to_updates
from contract.profiles.store import InMemoryProfileStore, fold
from contract.settings.reading import Settings, read_settings
from contract.units import MINUTE_MS
from export.exporter import export
from export.verification import verify
from model.checkpoint import Checkpoint, make_metadata
from tests.model.small import SHAPE
from training.data.examples import from_rows
from training.data.parquet import read_examples, write_examples
from training.trainer.fit import fit
from transport.records import Record, TopicPartition
from worker.catalogue.catalogue import Catalogue
from worker.model.onnx_model import Model
from worker.records.batch import decode_records
from worker.scoring.handlers import HANDLERS
from worker.scoring.scorer import LaneScorer, ScoringResources

NOW_MS: Final = 1_700_000_000_000
SHOP: Final = """
[entities.email]
source = "event.attributes.email"
ignore_case = true

[[tasks]]
name = "fraud"
kind = "binary"
groups = ["user", "order", "context"]
graph = "decide"

[[rules]]
feature = "email_orders"
above = 2
action = "decline"
reason = "many orders with one email"

[[rules]]
feature = "age"
above = 99
action = "review"
reason = "an age that is not likely"

[[rules]]
feature = "browser"
equals = "curl"
action = "decline"
reason = "no person orders with it"
"""
DECLARED: Final = {
    "browser": ("order", "category", "event.attributes.browser"),
    "age": ("order", "number", "event.attributes.age"),
    "note": ("order", "text", "event.attributes.note"),
    "look": ("order", "vector", "event.attributes.look"),
    "email_orders": ("order", "number", "profile.email.orders.count_1d"),
    "email_frauds": ("order", "number", "profile.email.fraud.bad"),
    "channel": ("context", "category", "event.attributes.channel"),
    "user_orders": ("user", "number", "profile.user.orders.count_1d"),
}
BROWSERS: Final = ("firefox", "safari", "curl")


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Settings, FeatureSet]:
    """Settings and features as a shop declares them."""
    tables = [
        f'[[features]]\nname = "{name}"\ngroup = "{group}"\nkind = "{kind}"\nsource = "{source}"\n'
        + ("size = 2\n" if kind == "vector" else "")
        for name, (group, kind, source) in DECLARED.items()
    ]
    (tmp_path / "shop.toml").write_text(SHOP)
    (tmp_path / "features.toml").write_text("\n".join(tables))
    monkeypatch.setenv("SHOPSTREAM_CONFIG", str(tmp_path / "shop.toml"))
    monkeypatch.setenv("SHOPSTREAM_FEATURES", str(tmp_path / "features.toml"))
    return read_settings()


def write_order(number: int, attributes: Mapping[str, Any] | None) -> bytes:
    return msgspec.json.encode(
        {
            "event_id": f"o{number}",
            "ts_ms": NOW_MS + number * MINUTE_MS,
            "user_id": f"u{number}",
            "lines": [{"item_id": "i", "quantity": 1, "unit_price": 5.0}],
            "amount": 5.0,
            "currency": "EUR",
            "payment_method": "card",
            "attributes": attributes,
        }
    )


def draw_attributes(rng: random.Random) -> dict[str, Any]:
    return {
        "browser": rng.choice(BROWSERS),
        "age": rng.randint(18, 80),
        "note": rng.choice(("leave at the door", "ring twice")),
        "look": [rng.random(), rng.random()],
        "email": f"{rng.randint(0, 10_000)}@x",
        "channel": rng.choice((1, 2)),
    }


class OrdersLane:
    """Scores records as the orders lane does, folds them, and joins the rows with labels."""

    def __init__(self, settings: Settings, features: FeatureSet) -> None:
        self.absent = Counter[tuple[str, str]]()
        encoder = Encoder(features, self.count_absent)
        self.settings, self.profiles = settings, InMemoryProfileStore()
        resources = ScoringResources(settings=settings, encoder=encoder, catalogue=Catalogue(encoder, 1))
        self.scorer = LaneScorer(HANDLERS["orders"], resources)
        self.joiner = Joiner(feedback=settings.feedback, tasks=settings.tasks)
        self.rows: list[ScoredRow] = []

    def count_absent(self, attribute: str, reason: str, events: int) -> None:
        self.absent[attribute, reason] += events

    def score(self, *values: bytes) -> list[Any]:
        """The decisions of some records."""
        partition = TopicPartition("shop.orders", 0)
        start = len(self.rows)
        records = [Record(partition, start + n, None, value, [], -1) for n, value in enumerate(values)]
        batch = decode_records(records, self.settings.topics.kinds_by_topic(), {partition: "orders/0"}, ())
        assert len(batch.arrivals) == len(values)
        updates = to_updates(batch.arrivals, kinds=self.settings.entity_kinds())
        folded = fold(self.profiles.read(updates.entities), updates)
        results = self.scorer.answer(batch, range(len(values)), folded, 0)
        self.profiles.merge(folded.slice_writes(), {}, {})
        for answer in results.answers:
            self.rows.append(read_scored_row(to_msgpack(answer.scored)))
            self.joiner.add_row(self.rows[-1])
        return [answer.message for answer in results.answers]

    def label(self, number: int, value: float) -> None:
        ts_ms = NOW_MS + number * MINUTE_MS
        self.joiner.add_event(
            Label(
                event_id=f"l{number}",
                ts_ms=ts_ms,
                user_id=f"u{number}",
                judged_event_id=f"o{number}",
                task="fraud",
                value=value,
            )
        )

    def drain(self) -> Iterator[Example]:
        """The examples so far, as they are read back; judgements are folded."""
        output = self.joiner.drain()
        arrivals = [Arrival("judgements/0", n, judgement) for n, judgement in enumerate(output.judgements)]
        updates = to_updates(arrivals, kinds=self.settings.entity_kinds())
        self.profiles.merge(fold(self.profiles.read(updates.entities), updates).slice_writes(), {}, {})
        yield from (read_example(to_msgpack(example)) for example in output.examples)


def test_own_fields_are_learned_and_served(shop: tuple[Settings, FeatureSet], tmp_path: Path, seed: int) -> None:
    # given orders, of which those by one browser are fraud
    settings, features = shop
    lane, rng = OrdersLane(settings, features), random.Random(seed)
    drawn = [draw_attributes(rng) for _ in range(600)]
    lane.score(*(write_order(number, attributes) for number, attributes in enumerate(drawn)))
    for number, attributes in enumerate(drawn):
        lane.label(number, float(attributes["browser"] == "curl"))
    # when their examples become training rows, a network and a bundle
    write_examples(tmp_path / "rows.parquet", from_rows(list(lane.drain()), features, settings.tasks))
    examples = read_examples(tmp_path / "rows.parquet", features, settings.tasks)
    training = settings.training.model_copy(update={"epochs": 12, "batch": 64, "learning_rate": 0.02})
    network = fit(examples, SHAPE, training, lambda epoch: None).network
    metadata = make_metadata(network, parent=None, created_ms=NOW_MS, evaluation={}, positions={})
    checkpoint = Checkpoint(metadata=metadata, weights=network.state_dict())
    exported = export(checkpoint, tmp_path / "bundles", {})
    bundle = read_bundle(tmp_path / "bundles", exported.manifest.version)
    # then the rows have what the orders had
    blocks = examples.blocks["order"]
    assert blocks.ids[0, 0] == hash_id(f"attributes.browser={drawn[0]['browser']}")
    assert blocks.ids[0, 1:].tolist() == list(encode_text(drawn[0]["note"]))
    np.testing.assert_allclose(blocks.numbers[0], [drawn[0]["age"], 0, 0, *drawn[0]["look"]], rtol=1e-6)
    # and the bundle names them, is valid, and tells the browsers apart on new orders
    assert bundle.manifest.features.keys() == DECLARED.keys()
    verify(bundle, features)
    lane.scorer.activate(Model(bundle, features), None)
    new = [draw_attributes(rng) | {"browser": BROWSERS[number % 3]} for number in range(30)]
    decisions = lane.score(*(write_order(1_000 + number, attributes) for number, attributes in enumerate(new)))
    probabilities = [decision.probability["fraud"] for decision in decisions]
    assert min(probabilities[2::3]) > max(probabilities[0::3] + probabilities[1::3])
    # and what becomes known of them is joined with the values that were served
    lane.label(1_002, 1.0)
    joined = from_rows(list(lane.drain()), features, settings.tasks)
    assert joined.event_id.tolist() == ["o1002"]
    assert joined.blocks["order"].ids[0, 0] == hash_id("attributes.browser=curl")
    assert joined.blocks["order"].numbers[0, 0] == new[2]["age"]
    assert joined.blocks["context"].ids[0, 0] == hash_id(f"attributes.channel={new[2]['channel']}")


def test_rules_act_on_own_fields_and_own_entities(shop: tuple[Settings, FeatureSet]) -> None:
    lane = OrdersLane(*shop)
    emails = ["j@x", "J@x ", " j@X", "j@x", "other@x"]
    decisions = lane.score(*(write_order(n, {"email": email, "age": 30}) for n, email in enumerate(emails)))
    decisions += lane.score(
        write_order(9, {"age": 120}), write_order(10, {"age": "120"}), write_order(11, {"browser": "curl"})
    )
    actions = ["approve"] * 3 + ["decline", "approve", "review", "approve", "decline"]
    assert [decision.action for decision in decisions] == actions


def test_a_label_counts_for_the_email_of_its_order(shop: tuple[Settings, FeatureSet]) -> None:
    # given an order that turned out to be fraud
    lane = OrdersLane(*shop)
    lane.score(write_order(0, {"email": "j@x"}))
    lane.label(0, 1.0)
    assert len(list(lane.drain())) == 1
    # when another user orders with its email
    lane.score(write_order(1, {"email": "j@x"}), write_order(2, {"email": "k@x"}))
    # then
    column = [feature.name for feature in shop[1].numbers("order")].index("email_frauds")
    assert [row.groups["order"].unpack().numbers[0, column] for row in lane.rows] == [0, 1, 0]


def test_absent_attributes_are_unknown_and_counted_and_lose_no_event(shop: tuple[Settings, FeatureSet]) -> None:
    # given one order without attributes, and one with each of them wrong
    lane = OrdersLane(*shop)
    wrong = {"browser": 1.5, "age": "old", "note": 7, "look": [1], "channel": {"a": 1}, "email": ["a"]}
    # when
    lane.score(write_order(0, None), write_order(1, wrong))
    # then
    for row in lane.rows:
        order, context = row.groups["order"].unpack(), row.groups["context"].unpack()
        assert np.isnan(order.numbers).all()
        assert not order.ids.any()
        assert not context.ids.any()
    names = ("browser", "age", "note", "look", "channel")
    assert lane.absent == {(name, reason): 1 for name in names for reason in ("missing", "type")}
