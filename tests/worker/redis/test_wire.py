"""Replies are the same over the raw wire and over redis-py's public calls, which serve where private names changed."""

import logging
from collections.abc import Iterator

import pytest
import redis

from contract.errors import Unavailable
from worker.redis import wire
from worker.redis.client import RedisClient, WrongType
from worker.redis.wire import PublicWire, RawWire


@pytest.fixture(params=[RawWire, PublicWire])
def client(request: pytest.FixtureRequest, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisClient]:
    monkeypatch.setattr("worker.redis.client.open_wire", lambda _: request.param())
    client = RedisClient(url=redis_url, timeout_s=20)
    yield client
    client.close()


def read_values(client: RedisClient, *keys: str) -> list[tuple[int, str, bytes]]:
    hashes, _ = client.read_hashes(keys)
    rows, start = [], 0
    for index, name, length in zip(hashes.hash_index, hashes.name_index, hashes.lengths, strict=True):
        rows.append((int(index), hashes.names[name], bytes(hashes.values[start : start + length])))
        start += length
    return rows


def test_replies_and_errors_come_in_the_order_of_the_commands(client: RedisClient) -> None:
    # given
    client.pipeline([("LPUSH", "list", "x")])
    # when
    replies = client._send([("SET", "a", "1"), ("GET", "list"), ("MGET", "a", "b"), ("INCR", "a")])
    # then
    assert replies[0] == b"OK"
    assert isinstance(replies[1], redis.ResponseError)
    assert replies[2:] == [[b"1", None], 2]


def test_hashes_are_read_with_the_command_after_them(client: RedisClient) -> None:
    client.pipeline([("HSET", "h1", "a", "1", "b", b"\r\n$1"), ("HSET", "h2", "b", "2"), ("SET", "after", "x")])

    assert read_values(client, "h1", "none", "h2") == [(0, "a", b"1"), (0, "b", b"\r\n$1"), (2, "b", b"2")]
    assert client.read_hashes(["h1"], ("GET", "after"))[1] == b"x"


def test_a_key_of_another_type_is_an_error_and_the_next_reply_is_not_lost(client: RedisClient) -> None:
    client.pipeline([("SET", "text", "x"), ("HSET", "h", "a", "1")])

    with pytest.raises(WrongType):
        client.read_hashes(["h", "text", "h"], ("PING",))

    assert client.pipeline([("PING",)]) == [b"PONG"]


def test_replies_larger_than_the_buffer_are_read_whole(client: RedisClient) -> None:
    value = b"x" * (3 * wire.READ_BYTES)

    assert client.pipeline([("SET", "big", value), ("GET", "big"), ("PING",)]) == [b"OK", value, b"PONG"]


def test_a_client_whose_private_names_changed_reads_through_public_calls(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # given a release of redis-py without the socket's name
    def receive(*_: object) -> int:
        raise AttributeError("'Connection' object has no attribute '_sock'")

    monkeypatch.setattr(wire, "receive", receive)
    client = RedisClient(url=redis_url, timeout_s=20)
    # when
    with caplog.at_level(logging.WARNING):
        replies = client.pipeline([("SET", "a", "1"), ("GET", "a")])
    # then
    assert replies == [b"OK", b"1"]
    assert isinstance(client.wire, PublicWire)
    assert [message for message in caplog.messages if "other private names" in message] == caplog.messages
    client.close()


def test_the_installed_redis_py_is_read_through_the_raw_wire(redis_url: str) -> None:
    client = RedisClient(url=redis_url, timeout_s=20)
    client.pipeline([("PING",)])

    assert isinstance(client.wire, RawWire)
    client.close()


def test_a_server_that_is_away_at_the_first_exchange_is_unavailable() -> None:
    client = RedisClient(url="redis://127.0.0.1:1", timeout_s=1)

    with pytest.raises(Unavailable, match="should answer"):
        client.pipeline([("PING",)])
    client.close()
