"""Replies to HGETALL as columns equal what hiredis parses, however the bytes arrive."""

import random
from collections.abc import Callable

import hiredis
import pytest

from worker.redis.resp import BrokenReply, Hashes, ReplyReader, to_hashes
from worker.warmup import warm_up

NAMES = [b"orders~AAAA/3", b"orders~AAAA/13", b"clicks/0", b"", "ä".encode()]
Receive = Callable[[memoryview], int]


def encode_reply(fields: dict[bytes, bytes]) -> bytes:
    parts = [b"$%d\r\n%s\r\n" % (len(part), part) for pair in fields.items() for part in pair]
    return b"*%d\r\n" % len(parts) + b"".join(parts)


def make_receive(wire: bytes, sizes: list[int]) -> Receive:
    """A function that fills its buffer with the next piece of `wire` at each call."""
    left = memoryview(wire)

    def receive(buffer: memoryview) -> int:
        nonlocal left
        size = min(sizes.pop() if sizes else len(left), len(buffer), len(left))
        assert size, "No bytes should be requested after the last."
        buffer[:size] = left[:size]
        left = left[size:]
        return size

    return receive


def parse_replies(hashes: Hashes, count: int) -> list[dict[str, bytes]]:
    replies: list[dict[str, bytes]] = [{} for _ in range(count)]
    start = 0
    for entity, name, length in zip(hashes.hash_index, hashes.name_index, hashes.lengths, strict=True):
        replies[entity][hashes.names[name]] = bytes(hashes.values[start : start + length])
        start += length
    assert start == len(hashes.values)
    return replies


def draw_hashes(seed: int) -> list[dict[bytes, bytes]]:
    rng = random.Random(seed)
    return [
        {name: rng.randbytes(rng.choice([0, 1, 9, 472])) for name in rng.sample(NAMES, rng.randrange(len(NAMES) + 1))}
        for _ in range(40)
    ]


@pytest.mark.parametrize("piece", [1, 7, 1_000])
def test_replies_are_the_same_however_their_bytes_arrive(seed: int, piece: int) -> None:
    # given hashes with any bytes as values, line ends too
    hashes = [*draw_hashes(seed), {b"end": b"\r\n*2\r\n$1\r\n"}]
    wire = b"".join(map(encode_reply, hashes))
    # when
    read, error, left = ReplyReader().read(len(hashes), make_receive(wire, [piece] * len(wire)))
    # then
    reader = hiredis.Reader()
    reader.feed(wire)
    flat = [reader.gets() for _ in hashes]
    expected = [{name.decode(): value for name, value in fields.items()} for fields in hashes]
    assert parse_replies(read, len(hashes)) == parse_replies(to_hashes(flat), len(hashes)) == expected
    assert (error, left) == (None, b"")


def test_a_reader_is_reusable_and_grows(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.redis.resp.BUFFER_BYTES", 16)
    monkeypatch.setattr("worker.redis.resp.BUFFER_KEPT_BYTES", 1_000)
    reader = ReplyReader()
    for value in (b"short", bytes(2_000), b"again"):
        read, _, left = reader.read(1, make_receive(encode_reply({b"a": value}) + b"+more", []))
        # then the bytes after the reply are not lost
        assert parse_replies(read, 1) == [{"a": value}]
        assert b"+more".startswith(left)


def test_the_first_error_is_returned_and_the_other_replies_are_read() -> None:
    wire = encode_reply({b"a": b"1"}) + b"-WRONGTYPE no hash\r\n-ERR other\r\n*0\r\n" + encode_reply({b"b": b"2"})

    read, error, _ = ReplyReader().read(5, make_receive(wire, []))

    assert error == "WRONGTYPE no hash"
    assert parse_replies(read, 5) == [{"a": b"1"}, {}, {}, {}, {"b": b"2"}]


@pytest.mark.parametrize(
    "wire", [b":1\r\n", b"+OK\r\n", b"*2\r\n:1\r\n:2\r\n", b"*2\r\n$-1\r\n$-1\r\n", b"HTTP/1.1\r\n"]
)
def test_a_reply_that_is_no_hash_is_refused(wire: bytes) -> None:
    with pytest.raises(BrokenReply, match="no hash"):
        ReplyReader().read(1, make_receive(wire, []))


def test_compiled_functions_can_be_warmed_up() -> None:
    warm_up()
