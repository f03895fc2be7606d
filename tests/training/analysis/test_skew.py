"""Training–serving skew: rows from the worker's own scorers compared with features recomputed from the log."""

import json
import random
from collections.abc import Sequence

import numpy as np
import pytest
from msgspec.structs import replace

from contract.errors import BadConfig
from contract.events.model import Click, Erasure, Event, Order
from contract.features.encoder import Encoder
from contract.features.packing import PackedBlock
from contract.messages import ScoredRow, to_json, to_msgpack
from contract.profiles.entity_updates import Arrival, to_updates
from contract.profiles.store import InMemoryProfileStore, fold
from contract.settings.reading import Settings
from devservers.embedded import EmbeddedKafka
from tests.kafka import BlockingProducer
from tests.worker.events import FEATURES, KINDS, NOW_MS, make_click, make_order, make_record
from training.__main__ import parse_arguments
from training.analysis.skew import SkewComparison, SkewReport, is_sampled
from training.commands.skew import EXIT_DIFFERENT, run
from transport.records import Record
from worker.catalogue.catalogue import Catalogue
from worker.records.batch import decode_records
from worker.scoring.handlers import HANDLERS
from worker.scoring.scorer import LaneScorer, ScoringResources

ORDERS, CLICKS = "shop.orders", "shop.clicks"
USERS = 12


class ScoringHarness:
    """Profiles in memory, the scorers of both lanes, and the log of the records that they answered."""

    def __init__(self) -> None:
        encoder = Encoder(FEATURES)
        self.profiles, self.rows, self.arrivals = InMemoryProfileStore(), list[ScoredRow](), list[Arrival]()
        resources = ScoringResources(settings=Settings(), encoder=encoder, catalogue=Catalogue(encoder))
        self._scorers = [LaneScorer(handlers, resources) for handlers in HANDLERS.values()]

    def serve(self, records: Sequence[Record]) -> None:
        """Answer a batch with the merged profiles, then merge it."""
        sources = {
            record.topic_partition: f"{KINDS[record.topic_partition.topic]}/{record.topic_partition.partition}"
            for record in records
        }
        batch = decode_records(records, KINDS, sources, ())
        updates = to_updates(batch.arrivals)
        folded = fold(self.profiles.read(updates.entities), updates)
        numbers = range(len(batch.arrivals))
        for scorer in self._scorers:
            self.rows += [answer.scored for answer in scorer.answer(batch, numbers, folded, 0).answers]
        self.profiles.merge(folded.slice_writes(), {}, {})
        self.arrivals += batch.arrivals


def draw_order(rng: random.Random, n: int) -> Order:
    """An order of few users, devices and cards, with times partly out of order."""
    return make_order(
        f"o{n}",
        f"i{rng.randrange(9)}",
        user=f"u{rng.randrange(USERS)}",
        ts_ms=NOW_MS + n * 400_000 - rng.randrange(2_000_000),
        amount=rng.randrange(1, 500),
        device=rng.choice([None, "d1", "d2"]),
        card=rng.choice([None, "c1", "c2", "c3"]),
    )


def split_batches(rng: random.Random, records: Sequence[Record]) -> list[Sequence[Record]]:
    batches, start = list[Sequence[Record]](), 0
    while start < len(records):
        size = rng.choice([1, 2, 7, 50])
        batches.append(records[start : start + size])
        start += size
    return batches


def make_records(topic: str, events: Sequence[Event], partition: int = 0) -> list[Record]:
    return [make_record(event, offset, topic=topic, partition=partition) for offset, event in enumerate(events)]


def compare_logs(
    shop: ScoringHarness,
    rows: Sequence[ScoredRow],
    *,
    partitions: int = 1,
    is_whole: bool = True,
    log: Sequence[Arrival] | None = None,
) -> SkewReport:
    comparison = SkewComparison(
        features=FEATURES, partitions={"orders": partitions, "clicks": partitions}, is_whole=is_whole
    )
    return comparison.run(rows, shop.arrivals if log is None else log, KINDS)


@pytest.fixture
def one_partition(seed: int) -> ScoringHarness:
    rng, shop = random.Random(seed), ScoringHarness()
    for batch in split_batches(rng, make_records(ORDERS, [draw_order(rng, n) for n in range(300)])):
        shop.serve(batch)
    return shop


def test_on_one_partition_of_one_topic_no_value_differs(one_partition: ScoringHarness) -> None:
    actual = compare_logs(one_partition, one_partition.rows)

    assert actual.rows == 300
    assert actual.exact.values > 15_000
    assert actual.timing.values > 3_000
    assert (actual.exact.differing, actual.timing.differing, actual.left_out) == ({}, {}, {})


def test_a_wrongly_served_value_is_reported_by_its_feature(one_partition: ScoringHarness) -> None:
    # given one row with another amount, and one with a flipped bit in an id
    first, second, *others = one_partition.rows
    column = [feature.name for feature in FEATURES.numbers("order")].index("order_amount")
    numbers = first.groups["order"].unpack().numbers.copy()
    numbers[0, column] += 1
    ids = second.groups["order"].unpack().ids.copy()
    ids[0, 0] ^= 1
    rows = [
        replace(first, groups=first.groups | {"order": PackedBlock(1, numbers.tobytes(), first.groups["order"].ids)}),
        replace(
            second, groups=second.groups | {"order": PackedBlock(1, second.groups["order"].numbers, ids.tobytes())}
        ),
    ]

    actual = compare_logs(one_partition, [*rows, *others])

    assert actual.exact.differing == {"order_amount": 1, "payment_method": 1}
    assert actual.exact.to_json()["equal"] == actual.exact.values - 2


def test_features_of_the_own_partition_are_exact_whatever_other_topics_do(seed: int) -> None:
    # given users who click and order, and clicks that are merged late for orders
    rng, shop = random.Random(seed), ScoringHarness()
    orders = make_records(ORDERS, [draw_order(rng, n) for n in range(200)])
    clicks = make_records(
        CLICKS, [make_click(f"c{n}", f"i{n % 9}", user=f"u{n % USERS}", ts_ms=NOW_MS + n * 200_000) for n in range(400)]
    )
    for n, batch in enumerate(split_batches(rng, orders)):
        shop.serve(batch)
        if n % 5 == 4:
            shop.serve(clicks[:60])
            clicks = clicks[60:]
    clicks_first = sorted(shop.arrivals, key=lambda arrival: (arrival.topic != CLICKS, arrival.offset))

    actual = compare_logs(shop, shop.rows, log=clicks_first)

    assert actual.rows > 200
    assert actual.exact.values > 5_000
    assert actual.exact.differing == {}
    assert {"user_first_links", "user_clicks_count_30d"} <= set(actual.timing.differing)


def test_device_features_depend_on_timing_with_two_order_partitions(seed: int) -> None:
    # given two partitions, one answered long before the other
    rng, shop = random.Random(seed), ScoringHarness()
    events = [draw_order(rng, n) for n in range(200)]
    parts = [make_records(ORDERS, [e for e in events if int(e.user_id[1:]) % 2 == p], p) for p in range(2)]
    for part in parts:
        for batch in split_batches(rng, part):
            shop.serve(batch)

    # when the log is read in the order of time
    by_time = sorted(shop.arrivals, key=lambda arrival: (arrival.offset, arrival.partition))
    actual = compare_logs(shop, shop.rows, partitions=2, log=by_time)

    # then features of the user's own partition are equal, and device features may differ
    assert actual.exact.differing == {}
    assert actual.exact.values > 2_000
    assert "device_orders_count_7d" in actual.timing.differing


def test_with_a_sample_of_users_only_user_features_are_compared(one_partition: ScoringHarness) -> None:
    sampled = [row for row in one_partition.rows if is_sampled(row.user_id, 0.5)]
    log = [a for a in one_partition.arrivals if isinstance(a.event, Order) and is_sampled(a.event.user_id, 0.5)]

    actual = compare_logs(one_partition, sampled, is_whole=False, log=log)

    assert 0 < actual.rows < 300
    assert actual.exact.differing == {}
    assert actual.exact.values < 40 * actual.rows  # no features of devices, cards and sellers


def test_rows_that_cannot_be_compared_are_counted_by_reason(one_partition: ScoringHarness) -> None:
    row, review, product, other, missing, truncated, *_ = one_partition.rows
    rows = [
        replace(row, kind="recommendation"),
        replace(review, kind="review"),
        replace(product, kind="product"),
        replace(other, features="another"),
        replace(missing, offset=999),
        replace(truncated, groups=truncated.groups | {"user": PackedBlock(1, b"123", b"")}),
    ]

    actual = compare_logs(one_partition, rows)

    assert actual.rows == 0
    assert actual.left_out == {
        "lists": 1,
        "of kind review": 1,
        "of kind product": 1,
        "of other features": 1,
        "event not found": 1,
        "unreadable": 1,
    }


def test_a_block_of_another_width_differs_in_every_feature(one_partition: ScoringHarness) -> None:
    row = one_partition.rows[0]
    narrow = replace(row, groups={"context": PackedBlock(1, np.zeros(1, "<f4").tobytes(), b"")})

    assert set(compare_logs(one_partition, [narrow]).exact.differing) == {"surface", "platform", "hour", "weekday"}


def test_a_sample_of_users_has_its_share_and_grows_with_it() -> None:
    sampled = {n for n in range(10_000) if is_sampled(f"u{n}", 0.1)}

    assert 800 < len(sampled) < 1_200
    assert sampled <= {n for n in range(10_000) if is_sampled(f"u{n}", 0.2)}
    assert all(is_sampled(f"u{n}", 1.0) for n in range(100))


def test_the_command_reads_both_logs_and_reports_differences(
    embedded_kafka: EmbeddedKafka, topic_prefix: str, one_partition: ScoringHarness, capsys: pytest.CaptureFixture[str]
) -> None:
    # given topics with the rows and events of the shop, an unreadable record, and an erased user
    plain = Settings().topics
    names = {kind: topic_prefix + name for kind, name in plain.names_by_kind().items()}
    embedded_kafka.create_topics(dict.fromkeys(names.values(), 4))
    kafka = {"bootstrap_servers": embedded_kafka.bootstrap, "topic_ids": False}
    settings = Settings.model_validate({"topics": names, "kafka": kafka})
    rows = [replace(row, topic=names["orders"]) for row in one_partition.rows]
    erasure = Erasure(event_id="x", ts_ms=NOW_MS, user_id="u0")
    send_values(embedded_kafka, names["orders"], [to_json(arrival.event) for arrival in one_partition.arrivals])
    send_values(embedded_kafka, names["scored"], [*(to_msgpack(row) for row in rows), b"junk"])
    send_values(embedded_kafka, names["erasures"], [to_json(erasure)])

    # when they are compared
    status = run(parse_arguments(["skew", "--share", "1"]), settings, FEATURES)

    # then nothing differs
    printed = json.loads(capsys.readouterr().out)
    erased = sum(row.user_id == "u0" for row in rows)
    assert status == 0
    assert printed["rows"] == 300 - erased
    assert printed["exact"]["differing"] == printed["timing"]["differing"] == 0
    assert printed["left_out"] == {"unreadable": 1, "of erased people": erased}
    assert printed["begins_late"] == []

    # and a wrongly served row of a user who is not erased gives another exit code
    latest = [row for row in rows if row.user_id != "u0"][-1]
    send_values(embedded_kafka, names["scored"], [to_msgpack(replace(latest, groups=rows[0].groups))])
    assert run(parse_arguments(["skew", "--share", "1"]), settings, FEATURES) == EXIT_DIFFERENT


def send_values(broker: EmbeddedKafka, topic: str, values: Sequence[bytes]) -> None:
    with BlockingProducer(broker.bootstrap) as producer:
        producer.send(topic, [(None, value) for value in values], partition=0, timestamp_ms=NOW_MS + 10**9)


@pytest.mark.parametrize("words", [["--share", "0"], ["--share", "1.5"], ["--rows", "0"]])
def test_an_impossible_share_or_number_of_rows_is_rejected(words: list[str]) -> None:
    with pytest.raises(BadConfig):
        run(parse_arguments(["skew", *words]), Settings(), FEATURES)


def test_clicks_are_compared_as_well() -> None:
    shop = ScoringHarness()
    shop.serve(make_records(CLICKS, [make_click(f"c{n}", f"i{n}", user="u", ts_ms=NOW_MS + n) for n in range(20)]))

    actual = compare_logs(shop, shop.rows)

    assert isinstance(shop.arrivals[0].event, Click)
    assert actual.rows == 20
    assert (actual.exact.differing, actual.timing.differing) == ({}, {})
