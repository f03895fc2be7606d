"""Seeded mutations of valid and of odd records: bytes, values of JSON, names of fields, keys, headers and times."""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from bench.guarantees.poison.corpus import TOPIC_KINDS, make_corpus
from bench.guarantees.poison.documents import LINE, Fields, make_fields, with_line, write_object
from bench.guarantees.poison.record_forms import HEADERS, KEYS, TIMES, OddRecord
from bench.guarantees.poison.values import VALUES

MUTATED_BYTES_MAX: Final = 4_000  # of most records to mutate, so that a million of them take minutes
LONG_SHARE: Final = 0.001
DOCUMENT_SHARE: Final = 0.7
FRAGMENTS: Final = tuple(fragment for fragment in VALUES.values() if len(fragment) < MUTATED_BYTES_MAX)
MARKS: Final = (
    b'"',
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\\",
    b"\\u",
    b"\x00",
    b"\xff",
    b"e9",
    b"-",
    b".",
    b"null",
    b"1e400",
)
Rng = random.Random


class Mutator:
    """Makes mutated records; the same seed gives the same ones."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(f"poison {seed}")
        self._number = 0
        corpus = [record for record in make_corpus() if record.value]
        self._short = [record for record in corpus if len(record.value or b"") <= MUTATED_BYTES_MAX]
        self._long = [record for record in corpus if len(record.value or b"") > MUTATED_BYTES_MAX]

    def make(self, count: int) -> Iterator[OddRecord]:
        """The next mutated records: changed documents, and changed bytes of odd records."""
        for _ in range(count):
            self._number += 1
            record = self._mutate_document() if self._rng.random() < DOCUMENT_SHARE else self._mutate_bytes()
            yield self._mutate_rest(record) if self._rng.random() < 0.05 else record

    def shuffle(self, records: Sequence[OddRecord]) -> list[OddRecord]:
        """Records in an order of this seed."""
        return self._rng.sample(records, len(records))

    def _mutate_document(self) -> OddRecord:
        rng, kind = self._rng, self._rng.choice(TOPIC_KINDS)
        document = make_fields(kind, f"{kind}-mutated-{self._number}")
        for _ in range(rng.choice((1, 1, 2, 3))):
            document = rng.choice(DOCUMENT_CHANGES)(document, rng)
        value = write_object(document)
        if rng.random() < 0.1:
            value = rng.choice(BYTE_CHANGES)(value, rng)
        return OddRecord("mutated document", kind, b"u1", value)

    def _mutate_bytes(self) -> OddRecord:
        rng = self._rng
        record = rng.choice(self._long if rng.random() < LONG_SHARE else self._short)
        value = record.value or b""
        for _ in range(rng.choice((1, 1, 2, 4))):
            value = rng.choice(BYTE_CHANGES)(value, rng)
        kind = record.kind if rng.random() < 0.9 else rng.choice(TOPIC_KINDS)
        return record._replace(form="mutated bytes", kind=kind, value=value)

    def _mutate_rest(self, record: OddRecord) -> OddRecord:
        rng = self._rng
        return record._replace(
            key=rng.choice((*KEYS.values(), rng.randbytes(rng.randrange(40)))),
            headers=rng.choice((*HEADERS.values(), ((rng.randbytes(4).hex(), rng.randbytes(4)),))),
            timestamp_ms=rng.choice((0, *TIMES.values())),
        )


def set_value(document: Fields, rng: Rng) -> Fields:
    return {**document, rng.choice(list(document)): rng.choice(FRAGMENTS)}


def swap_values(document: Fields, rng: Rng) -> Fields:
    first, second = rng.choices(list(document), k=2)
    return {**document, first: document[second], second: document[first]}


def leave_out(document: Fields, rng: Rng) -> Fields:
    left_out = rng.choice(list(document))
    return {name: value for name, value in document.items() if name != left_out or len(document) == 1}


def rename(document: Fields, rng: Rng) -> Fields:
    renamed = rng.choice(list(document))
    other = rng.choice((renamed.upper(), renamed[::-1], renamed + " ", "x", "items", "lines", "attributes"))
    return {other if name == renamed else name: value for name, value in document.items()}


def set_line(document: Fields, rng: Rng) -> Fields:
    return with_line(document, {**LINE, rng.choice(list(LINE)): rng.choice(FRAGMENTS)})


def set_attribute(document: Fields, rng: Rng) -> Fields:
    names = rng.sample(("browser", "age", "gift", "taste", "email", "x"), 3)
    return {**document, "attributes": write_object({name: rng.choice(FRAGMENTS) for name in names})}


def wrap_value(document: Fields, rng: Rng) -> Fields:
    name = rng.choice(list(document))
    wrapped = rng.choice((b"[%s]", b'{"value": %s}', b"[[%s], null]")) % document[name]
    return {**document, name: wrapped}


def cut_value(document: Fields, rng: Rng) -> Fields:
    name = rng.choice(list(document))
    return {**document, name: rng.choice(BYTE_CHANGES)(document[name], rng)}


def flip_byte(value: bytes, rng: Rng) -> bytes:
    if not value:
        return value
    place = rng.randrange(len(value))
    return value[:place] + bytes([value[place] ^ (1 << rng.randrange(8))]) + value[place + 1 :]


def cut(value: bytes, rng: Rng) -> bytes:
    begin, end = sorted(rng.choices(range(len(value) + 1), k=2))
    return value[:begin] + value[end:]


def cut_end(value: bytes, rng: Rng) -> bytes:
    return value[: rng.randrange(len(value) + 1)]


def insert_mark(value: bytes, rng: Rng) -> bytes:
    place = rng.randrange(len(value) + 1)
    return value[:place] + rng.choice(MARKS) + value[place:]


def insert_fragment(value: bytes, rng: Rng) -> bytes:
    place = rng.randrange(len(value) + 1)
    return value[:place] + rng.choice(FRAGMENTS) + value[place:]


def insert_bytes(value: bytes, rng: Rng) -> bytes:
    place = rng.randrange(len(value) + 1)
    return value[:place] + rng.randbytes(rng.randrange(1, 9)) + value[place:]


def repeat_part(value: bytes, rng: Rng) -> bytes:
    begin, end = sorted(rng.choices(range(len(value) + 1), k=2))
    return value[:end] + value[begin:end][:MUTATED_BYTES_MAX] + value[end:]


def replace_digit(value: bytes, rng: Rng) -> bytes:
    places = [place for place, byte in enumerate(value[:MUTATED_BYTES_MAX]) if 48 <= byte <= 57]
    if not places:
        return value
    place = rng.choice(places)
    return value[:place] + rng.choice((b"-", b"9" * 25, b"e5", b".5", b"", b"00")) + value[place + 1 :]


DOCUMENT_CHANGES: Final[Sequence[Callable[[Fields, Rng], Fields]]] = (
    set_value,
    set_value,
    swap_values,
    leave_out,
    rename,
    set_line,
    set_attribute,
    set_value,
    wrap_value,
    cut_value,
)
BYTE_CHANGES: Final[Sequence[Callable[[bytes, Rng], bytes]]] = (
    flip_byte,
    cut,
    cut_end,
    insert_mark,
    insert_fragment,
    insert_bytes,
    repeat_part,
    replace_digit,
)
