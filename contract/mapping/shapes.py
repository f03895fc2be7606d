"""The shape of the records of a topic: structs, made from the paths of its maps, into which JSON is decoded.

Decoding into structs leaves out all that no path names, and takes half the time of a document of dictionaries. A record
of another shape, such as a text in place of an object, is decoded into such a document instead; both give the same.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from contract.events.bounds import check_depth
from contract.events.model import RECORD_BYTES_MAX
from contract.mapping.paths import Each, Step, parse_path
from contract.settings.mapping import FieldSource, MapTable

DECODE_ERRORS: Final = (
    msgspec.DecodeError,
    UnicodeDecodeError,
    RecursionError,
)  # of a record of another shape, or none


@dataclass(slots=True, eq=False)
class Place:
    """A place in a record: an object of which `fields` are read, a list with `entries` of such objects, or a value.

    `types`: those that the value is read as, by one path each; `is_searched`: some go on in it, as in `[0].sku`. Only
    the lines of orders are read from the entries of a list.
    """

    fields: dict[str, "Place"] = field(default_factory=dict)
    entries: "Place | None" = None
    types: list[Any] = field(default_factory=list)
    is_searched: bool = False

    def add(self, steps: Sequence[Step], *, has_lines: bool, as_type: Any = Any) -> None:
        """Add the path of these steps from here; `has_lines`: of a source within lines, `as_type`: of its value."""
        if steps and isinstance(steps[0], str):
            self.fields.setdefault(steps[0], Place()).add(steps[1:], has_lines=has_lines, as_type=as_type)
        elif steps and isinstance(steps[0], Each) and has_lines:
            self.entries = self.entries or Place()
            self.entries.add(steps[1:], has_lines=False, as_type=as_type)
        else:
            self.types.append(as_type)
            self.is_searched |= bool(steps)

    @property
    def is_read(self) -> bool:
        """Whether it is read as a whole."""
        return bool(self.types)

    @property
    def is_object(self) -> bool:
        return bool(self.fields) and not self.is_read and self.entries is None

    @property
    def is_list(self) -> bool:
        return self.entries is not None and self.entries.is_object and not self.fields and not self.is_read

    @property
    def is_exact(self) -> bool:
        """Whether this object, and all in it, is read in one way only, and each value as one type."""
        if self.is_list:
            assert self.entries
            return self.entries.is_exact
        if self.is_object:
            return all(place.is_exact for place in self.fields.values())
        if self.fields or self.entries or self.is_searched:
            return False
        return bool(self.types) and all(other == self.types[0] for other in self.types)

    def attribute_of(self, name: str) -> str:
        """The attribute of this object's struct that holds the field of this name."""
        return f"field_{list(self.fields).index(name)}"

    def make_struct(self) -> Any:
        """The struct of an object; a field that is absent or null is None."""
        names = {self.attribute_of(name): name for name in self.fields}
        types = [(attribute, self.fields[name].make_type(), None) for attribute, name in names.items()]
        return msgspec.defstruct("Shape", types, rename=names, gc=False)

    def make_type(self) -> Any:
        if self.is_object:
            return self.make_struct() | None
        if self.is_list:
            assert self.entries
            return list[self.entries.make_struct()] | None  # type: ignore[misc]
        return self.types[0] if self.is_exact else Any


def find_shape(tables: Iterable[MapTable]) -> Place | None:
    """The shape of the records that these maps read; None where decoding into it would save nothing."""
    root = Place()
    for table in tables:
        if table.envelope:
            return None  # is opened as a document
        for source, has_lines in list_sources_by_place(table):
            for path in source.paths:
                root.add(parse_path(path), has_lines=has_lines)
    return root if root.is_object else None


def make_decode(shape: Place) -> Callable[[bytes], Any]:
    """The function from JSON to a struct of a shape; raises one of `DECODE_ERRORS`, or `BadEvent`."""
    decode = msgspec.json.Decoder(shape.make_struct()).decode

    def decode_within_bounds(value: bytes) -> Any:
        if len(value) > RECORD_BYTES_MAX:
            raise msgspec.DecodeError("too large")
        if not value.isascii():
            value.decode()  # msgspec does not validate strings of fields that it skips
        check_depth(value)
        return decode(value)

    return decode_within_bounds


def list_sources_by_place(table: MapTable) -> Iterator[tuple[FieldSource, bool]]:
    """The sources of a map, and whether each is one of lines."""
    if table.type_source:
        yield table.type_source, False
    for name, source in table.fields.items():
        if isinstance(source, dict):
            yield from ((part, name == "lines") for part in source.values())
        else:
            yield source, False
