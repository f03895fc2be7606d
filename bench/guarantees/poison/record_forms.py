"""Records that are odd in more than their value: keys, headers, Kafka times, tombstones."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from bench.guarantees.poison.documents import BASE_MS, Fields, write_object
from contract.messages import DEAD_LETTER_HEADER

Headers = Sequence[tuple[str, bytes | None]]


class OddRecord(NamedTuple):
    """A record, and the name of its odd kind; `timestamp_ms` 0: the time of sending, -1: none."""

    form: str
    kind: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    timestamp_ms: int = 0


Change = Callable[[str, str, Fields], OddRecord]  # of the form, the kind and a valid document


def as_record(
    key: bytes | None = b"u1", headers: Headers = (), timestamp_ms: int = 0, *, is_bad: bool = True
) -> Change:
    """A record whose key, headers or time are odd; `is_bad`: its value is, too, so that a dead letter carries them."""

    def change(form: str, kind: str, document: Fields) -> OddRecord:
        value = write_object({**document, "event_id": b"null"} if is_bad else document)
        return OddRecord(form, kind, key, value, headers, timestamp_ms)

    return change


KEYS: Final[Mapping[str, bytes | None]] = {
    "no key": None,
    "an empty key": b"",
    "a key that is not UTF-8": b"\xff\xfe\x00",
    "a key of NUL": b"\x00",
    "a key that is JSON": b'{"id": "u1"}',
    "a key that is JSON cut short": b'{"id": ',
    "a key of 5,000 digits": b"9" * 5_000,
    "a key nested deeply": b"[" * 5_000,
    "a key of 100 KiB": b"k" * 100 * 1_024,
    "a key of another user": b"u2",
    "a key with spaces": b" u1 ",
    "a key of an integer": b"\x00\x00\x00\x07",
    "a key with a frame": b"\x00\x00\x00\x00\x07\x02u",
}
HEADERS: Final[Mapping[str, Headers]] = {
    "a header without a value": (("a", None),),
    "a header without a name": (("", b"x"),),
    "a header without both": (("", b""),),
    "a header of bytes": (("trace", b"\x00\xff\xfe"),),
    "a header of 100 KiB": (("long", b"x" * 100 * 1_024),),
    "a header with a long name": (("n" * 10_000, b"x"),),
    "a header with an odd name": (("é \U0001f600\n{}", b"x"),),
    "a header twice": (("a", b"1"), ("a", b"2"), ("a", None)),
    "1,000 headers": tuple((f"h{number}", b"v") for number in range(1_000)),
    "a header of dead letters": ((DEAD_LETTER_HEADER, b"{}"),),
    "a header of dead letters that is not JSON": ((DEAD_LETTER_HEADER, b"\xff"), (DEAD_LETTER_HEADER, None)),
    "headers of CloudEvents": (("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_type", b"click")),
    "headers of CloudEvents without values": (("ce_specversion", None), ("ce_id", None), ("ce_type", None)),
    "headers of CloudEvents of bytes": (("ce_specversion", b"\xff"), ("ce_type", b"\xff"), ("ce_", b"x")),
    "headers of our own": (("shopstream-shard", None), ("shopstream-copy", b"\xff"), ("user", None), ("type", b"\xff")),
}
TIMES: Final[Mapping[str, int]] = {
    "no Kafka time": -1,
    "a Kafka time of 1970": 1,
    "a Kafka time of 2001": 1_000_000_000_000,
    "a Kafka time before the event's": BASE_MS - 86_400_000,
    "a Kafka time of the year 5138": 99_999_999_999_999,
    "the greatest Kafka time": 2**62,
}
RECORD_FORMS: Final[Mapping[str, Change]] = {
    **{form: as_record(key) for form, key in KEYS.items()},
    **{f"{form} of a good event": as_record(key, is_bad=False) for form, key in KEYS.items()},
    **{form: as_record(headers=headers) for form, headers in HEADERS.items()},
    **{f"{form} of a good event": as_record(headers=headers, is_bad=False) for form, headers in HEADERS.items()},
    **{form: as_record(timestamp_ms=ms, is_bad=False) for form, ms in TIMES.items()},
    "a tombstone": lambda form, kind, document: OddRecord(form, kind, b"i9", None),
    "a tombstone without a key": lambda form, kind, document: OddRecord(form, kind, None, None),
    "a tombstone with headers": lambda form, kind, document: OddRecord(
        form, kind, b"i9", None, HEADERS["a header twice"]
    ),
    "a good event": as_record(is_bad=False),
}
