"""Records that the client cannot represent or that are too large to keep: none blocks its partition."""

import msgspec

from contract.messages import DEAD_LETTER_HEADER, read_dead_letter, to_json
from contract.profiles.record import profile_key
from contract.redis_keys import escape_id
from testkit.metrics import read_metric
from tests.raw_records import send_raw
from tests.worker.environment import WorkerEnvironment
from tests.worker.events import make_order
from tests.worker.worker_lifecycle import InProcessWorker
from worker.ops import metrics

NOT_UTF8 = [(b"trace", b"1"), (b"\xff\xfe", b"2")]


def test_an_order_with_a_header_name_that_is_not_utf8_is_decided(stage: WorkerEnvironment) -> None:
    # given such an order, a bad record with such a header, and a plain order
    bootstrap, topic = stage.broker.bootstrap, stage.topics.orders
    send_raw(bootstrap, topic, to_json(make_order("o1", "i1")), key=b"\xff", headers=NOT_UTF8)
    send_raw(bootstrap, topic, b"no order", headers=NOT_UTF8)
    send_raw(bootstrap, topic, to_json(make_order("o2", "i1")))
    dropped = read_metric(metrics.DROPPED_HEADERS)
    # when
    with InProcessWorker(stage) as worker:
        worker.process_all(stage.end_offsets("orders"))
    # then
    assert stage.is_decided_once({"o1", "o2"})
    (dead_letter,) = stage.read_records("dead_letters")
    assert [name for name, _ in dead_letter.headers] == ["trace", DEAD_LETTER_HEADER]
    assert read_dead_letter(dict(dead_letter.headers)[DEAD_LETTER_HEADER]).reason == "not_json"
    assert read_metric(metrics.DROPPED_HEADERS) == dropped + 2


def test_a_label_without_a_value_is_a_dead_letter_with_its_key(stage: WorkerEnvironment) -> None:
    # given labels without a value and an order without one, each before a good order
    send_raw(stage.broker.bootstrap, stage.topics.labels, None, key=b"u1")
    send_raw(stage.broker.bootstrap, stage.topics.orders, None, key=b"u2")
    send_raw(stage.broker.bootstrap, stage.topics.orders, to_json(make_order("o1", "i1")))
    # when
    with InProcessWorker(stage, kinds=("orders", "labels")) as worker:
        worker.run_until(lambda: len(stage.read_records("dead_letters")) == 2)
        worker.run_until(lambda: stage.is_decided_once({"o1"}))
    # then
    letters = stage.read_records("dead_letters")
    headers = [read_dead_letter(dict(letter.headers)[DEAD_LETTER_HEADER]) for letter in letters]
    assert {(letter.key, header.topic, header.reason) for letter, header in zip(letters, headers, strict=True)} == {
        (b"u1", stage.topics.labels, "empty"),
        (b"u2", stage.topics.orders, "empty"),
    }
    assert [letter.value for letter in letters] == [None, None]


def test_orders_with_ids_of_other_systems_are_decided_under_escaped_keys(stage: WorkerEnvironment) -> None:
    # given
    idents = ["auth0|5f7c", "gid://shopify/Order/1", "{6F96}", "Größe-42", "o'brien@example.com", "50%"]
    for ident in idents:
        order = {**msgspec.to_builtins(make_order(ident, "i1")), "user_id": ident, "device_id": "", "ip": "unknown"}
        send_raw(stage.broker.bootstrap, stage.topics.orders, msgspec.json.encode(order))
    # when
    with InProcessWorker(stage) as worker:
        worker.process_all(stage.end_offsets("orders"))
    # then
    assert stage.is_decided_once(set(idents))
    keys = [f"{stage.prefix}decision:{escape_id(ident)}" for ident in idents]
    keys += [f"{stage.prefix}{profile_key(f'user:{ident}')}" for ident in idents]
    assert stage.redis.pipeline([("EXISTS", key) for key in keys]) == [1] * len(keys)
