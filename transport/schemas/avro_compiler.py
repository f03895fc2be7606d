"""A function from Avro's binary data to a document, generated as Python text from a schema.

fastavro looks at the schema again for each value of each record, and calls a file for its bytes, which takes twice as
long. The function reads what nearly all data are; for the rest it raises one of `IRREGULAR`, and fastavro then reads
the data, or says what is wrong with them.
"""

import math
import struct
from collections.abc import Callable
from typing import Any, Final

from contract.mapping.envelopes import FRAMING_BYTES

IRREGULAR: Final = (IndexError, ValueError, struct.error)  # the data are cut, or of a form that is left to fastavro
LINES_MAX: Final = 2_000  # of the text, in which a type is repeated wherever it is used
DEPTH_MAX: Final = 16  # Python takes 20 loops within each other
NUMBER_BITS: Final = 64
BOOLEANS: Final = (False, True)


class Unsupported(Exception):
    """A schema whose data fastavro has to read."""


def compile_avro(schema: Any) -> Callable[[bytes], Any] | None:
    """The function from a framed value to a document of JSON's types; None for a schema that it cannot be made for.

    `schema`: as fastavro parses it.
    """
    writer = _Writer()
    try:
        document = writer.write_value(1, schema)
    except Unsupported:
        return None
    return writer.compile(document)


class _Writer:
    """Writes the text: the statements for each value leave it in a variable, and its end in `at`."""

    def __init__(self) -> None:
        self._lines = ["def read(data):", f"    at = {FRAMING_BYTES}"]
        self._names: dict[str, Any] = {
            "read_number": read_number,
            "isfinite": math.isfinite,
            "BOOLEANS": BOOLEANS,
            "read_float": struct.Struct("<f").unpack_from,
            "read_double": struct.Struct("<d").unpack_from,
        }
        self._types: dict[str, Any] = {}  # by their names; None while their own text is written
        self._count = 0

    def compile(self, document: str) -> Callable[[bytes], Any]:
        self._write(1, "if at > len(data):")
        self._write(2, "raise ValueError('cut')")
        self._write(1, f"return {document}")
        exec("\n".join(self._lines), self._names)
        read: Callable[[bytes], Any] = self._names["read"]
        return read

    def write_value(self, depth: int, schema: Any) -> str:
        """Write the statements for a value; returns its variable. Raises `Unsupported`."""
        if len(self._lines) > LINES_MAX or depth > DEPTH_MAX:
            raise Unsupported
        if isinstance(schema, str) and schema in self._types:
            schema = self._types[schema]
        if isinstance(schema, list):
            return self._write_union(depth, schema)
        kind = schema["type"] if isinstance(schema, dict) else schema
        if schema is None or (isinstance(schema, dict) and "logicalType" in schema):
            raise Unsupported
        if isinstance(kind, dict | list):
            return self.write_value(depth, kind)
        write = {
            "int": self._write_long,
            "long": self._write_long,
            "string": self._write_text,
            "bytes": self._write_text,
            "float": self._write_float,
            "double": self._write_float,
            "boolean": self._write_boolean,
            "enum": self._write_enum,
            "record": self._write_record,
            "array": self._write_blocks,
            "map": self._write_blocks,
        }.get(kind)
        if write is None:
            raise Unsupported
        if not isinstance(schema, dict) or "name" not in schema:
            return write(depth, schema, kind)
        self._types[schema["name"]] = None
        value = write(depth, schema, kind)
        self._types[schema["name"]] = schema
        return value

    def _write(self, depth: int, line: str) -> None:
        self._lines.append("    " * depth + line)

    def _name(self) -> str:
        self._count += 1
        return f"value_{self._count}"

    def _write_number(self, depth: int) -> None:
        """Set `number` to a number as it is written: twice the value, or twice what lies below -1 and 1."""
        self._write(depth, "number = data[at]")
        self._write(depth, "at += 1")
        self._write(depth, "if number > 127:")
        self._write(depth + 1, "number, at = read_number(data, number, at)")

    def _write_size(self, depth: int) -> None:
        """Set `number` to twice a size, which is not negative."""
        self._write_number(depth)
        self._write(depth, "if number & 1:")
        self._write(depth + 1, "raise ValueError('negative')")

    def _write_long(self, depth: int, schema: Any, kind: str) -> str:
        value = self._name()
        self._write_number(depth)
        self._write(depth, f"{value} = (number >> 1) ^ -(number & 1)")
        return value

    def _write_text(self, depth: int, schema: Any, kind: str) -> str:
        value, errors = self._name(), "" if kind == "string" else "errors='replace'"
        self._write_size(depth)
        self._write(depth, "end = at + (number >> 1)")
        self._write(depth, f"{value} = data[at:end].decode({errors})")
        self._write(depth, "at = end")
        return value

    def _write_float(self, depth: int, schema: Any, kind: str) -> str:
        value = self._name()
        self._write(depth, f"({value},) = read_{kind}(data, at)")
        self._write(depth, f"at += {4 if kind == 'float' else 8}")
        self._write(depth, f"if not isfinite({value}):")  # JSON has no such number
        self._write(depth + 1, f"{value} = None")
        return value

    def _write_boolean(self, depth: int, schema: Any, kind: str) -> str:
        value = self._name()
        self._write(depth, f"{value} = BOOLEANS[data[at]]")
        self._write(depth, "at += 1")
        return value

    def _write_enum(self, depth: int, schema: Any, kind: str) -> str:
        value, symbols = self._name(), f"symbols_{self._count}"
        self._names[symbols] = tuple(schema["symbols"])
        self._write_size(depth)
        self._write(depth, f"{value} = {symbols}[number >> 1]")
        return value

    def _write_record(self, depth: int, schema: Any, kind: str) -> str:
        if not schema["fields"]:
            raise Unsupported  # a list may hold any number of them in no bytes
        value = self._name()
        parts = [f"{field['name']!r}: {self.write_value(depth, field['type'])}" for field in schema["fields"]]
        self._write(depth, f"{value} = {{{', '.join(parts)}}}")
        return value

    def _write_blocks(self, depth: int, schema: Any, kind: str) -> str:
        """A list or a table: blocks of entries, each after their number, up to one of none."""
        value = self._name()
        self._write(depth, f"{value} = {'[]' if kind == 'array' else '{}'}")
        self._write(depth, "while data[at]:")
        self._write_size(depth + 1)
        self._write(depth + 1, "for _ in range(number >> 1):")
        if kind == "array":
            self._write(depth + 2, f"{value}.append({self.write_value(depth + 2, schema['items'])})")
        else:
            name = self._write_text(depth + 2, "string", "string")
            self._write(depth + 2, f"{value}[{name}] = {self.write_value(depth + 2, schema['values'])}")
        self._write(depth, "at += 1")
        return value

    def _write_union(self, depth: int, members: list[Any]) -> str:
        value = self._name()
        self._write_number(depth)
        for place, member in enumerate(members):
            self._write(depth, f"{'elif' if place else 'if'} number == {2 * place}:")
            part = "None" if member == "null" else self.write_value(depth + 1, member)
            self._write(depth + 1, f"{value} = {part}")
        self._write(depth, "else:")
        self._write(depth + 1, "raise ValueError('no member')")
        return value


def read_number(data: bytes, first: int, position: int) -> tuple[int, int]:
    """A number of several bytes, and its end; `first`: the byte before `position`."""
    number, shift, byte = first & 127, 7, 128
    while byte > 127 and shift < NUMBER_BITS:
        byte = data[position]
        position += 1
        number |= (byte & 127) << shift
        shift += 7
    if number >> NUMBER_BITS or byte > 127 or not byte:
        raise ValueError("too long, or longer than it has to be")
    return number, position
