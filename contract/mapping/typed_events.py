"""Events that are built from a record without a document between, as most records of a map with plain paths can be.

The record is decoded into a struct with the types of the event's fields, so that msgspec checks their bounds while it
decodes. Whatever cannot be read so is left to the map's document, which is read leniently and says what is wrong.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from contract.errors import BadEvent
from contract.events.model import ATTRIBUTES_MAX, KINDS, LIST_ITEMS_MAX, Event, Id, Line, Millis
from contract.mapping.builder import DOCUMENT, ENTRY, Writer
from contract.mapping.paths import parse_path, split_each
from contract.mapping.shapes import DECODE_ERRORS, Place, make_decode
from contract.mapping.sources import find_list, list_sources
from contract.settings.mapping import FieldSource, FieldSources, MapTable

ReadEvent = Callable[[bytes], Event | None]
OTHER_FORM: Final = (*DECODE_ERRORS, BadEvent)
WHOLE: Final = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
IDS: Final = (Id, Id | None)
TIMES: Final = (Millis, Millis | None, Any)


def compile_event(table: MapTable, placeholders: frozenset[str]) -> ReadEvent | None:
    """The function from a record that is JSON to its event, None for a record of another form.

    None for a map whose fields are not all read of places with one type each. Whether the event is in the plain form
    (`contract.events.plain_form`) is not looked at. `placeholders`: what stands for no id, in lower case.
    """
    if table.envelope or table.type_source:
        return None
    struct = KINDS[table.kind]
    fields = {name: source for name, source in table.fields.items() if name in struct.__struct_fields__}
    shape = find_typed_shape(fields, struct)
    if shape is None or not set(list_required(struct)) <= fields.keys():
        return None
    decode, build = make_decode(shape), compile_build(fields, struct, placeholders, shape)

    def read(value: bytes) -> Event | None:
        try:
            return build(decode(value))
        except OTHER_FORM:
            return None

    return read


def find_typed_shape(fields: FieldSources, struct: type[Event]) -> Place | None:
    """The shape of the records from which these fields are read, with the fields' types; None where they have none."""
    root, types, line_types = Place(), list_types(struct), list_types(Line)
    for name, source in fields.items():
        if not isinstance(source, dict):
            is_found = add_source(root, source, types[name], has_lines=False)
        elif name == "lines":
            lists = [split_each(parse_path(path)) for part in source.values() for path in part.paths]
            is_found = (
                len({parts[0] for parts in lists if parts}) == 1
                and set(list_required(Line)) <= source.keys()
                and all(add_source(root, part, line_types[field], has_lines=True) for field, part in source.items())
            )
        else:
            is_found = len(source) <= ATTRIBUTES_MAX and all(
                add_source(root, part, Any, has_lines=False) for part in source.values()
            )
        if not is_found:
            return None
    return root if root.is_object and root.is_exact else None


def add_source(root: Place, source: FieldSource, annotation: Any, *, has_lines: bool) -> bool:
    """Add the places of a source to a shape; False for one whose values msgspec cannot check while it decodes."""
    if (
        source.header
        or source.key
        or source.table
        or source.join_with is not None
        or (source.unit and annotation not in TIMES)
    ):
        return False
    if not all(has_type(value, annotation) for value in (source.constant, source.default)):
        return False
    as_type = Any if source.unit or annotation is Any else annotation | None
    if annotation in IDS:
        as_type = WHOLE | annotation | None  # many shops number what they have
    for path in source.paths:
        root.add(parse_path(path), has_lines=has_lines, as_type=as_type)
    return True


def has_type(value: object, annotation: Any) -> bool:
    """Whether a value of the settings is None, or of a field's type as it is."""
    try:
        return value is None or type(msgspec.convert(value, annotation)) is type(value)
    except msgspec.ValidationError:
        return False


def compile_build(
    fields: FieldSources, struct: type[Event], placeholders: frozenset[str], shape: Place
) -> Callable[[Any], Event | None]:
    """The function from a struct of a shape to the event; None where a required field has no value."""
    writer = Writer(placeholders, shape)
    writer.write(0, f"def build({DOCUMENT}):")
    writer.open_objects(1, DOCUMENT, [path for source in list_sources(fields) for path in source.paths])
    required, types = list_required(struct), list_types(struct)
    for name, source in fields.items():
        if not isinstance(source, dict):
            write_value(writer, 1, name, source, types[name], f"event_{name}", is_required=name in required)
        elif name == "lines":
            write_lines(writer, source)
        else:
            writer.write_object(source)
            writer.write(1, f"event_{name} = part or None")
    writer.write(1, f"return {write_call(writer, struct, 'event_', fields)}")
    build: Callable[[Any], Event | None] = writer.compile("build")
    return build


def write_value(
    writer: Writer, depth: int, name: str, source: FieldSource, annotation: Any, target: str, *, is_required: bool
) -> None:
    """Set a variable to the value of a source, and return from the function where it is none of the field's."""
    writer.write_source(depth, name, source, list_steps=find_list({name: source}), target=target)
    if annotation in IDS:
        writer.write(depth, f"if {target}.__class__ is int:")
        writer.write(depth + 1, f"{target} = str({target})")
    if source.unit:  # a time that cannot be converted stays as it is
        may_be_absent = "" if is_required else f" and {target} is not None"
        writer.write(depth, f"if {target}.__class__ is not int{may_be_absent}:")
        writer.write(depth + 1, "return None")
    elif is_required:
        writer.write(depth, f"{'elif' if annotation in IDS else 'if'} {target} is None:")
        writer.write(depth + 1, "return None")


def write_lines(writer: Writer, sources: Mapping[str, FieldSource]) -> None:
    """Set `event_lines` to the lines of an order."""
    list_steps, required, types = find_list(sources), list_required(Line), list_types(Line)
    assert list_steps
    writer.write(1, f"entries = {writer.locate_list(list_steps)}")
    writer.write(1, f"if entries is None or not 0 < len(entries) <= {LIST_ITEMS_MAX}:")
    writer.write(2, "return None")
    writer.write(1, "lines = []")
    writer.write(1, f"for {ENTRY} in entries:")
    writer.open_objects(2, ENTRY, [path for source in sources.values() for path in source.paths])
    for name, source in sources.items():
        write_value(writer, 2, name, source, types[name], f"line_{name}", is_required=name in required)
    writer.write(2, f"lines.append({write_call(writer, Line, 'line_', sources)})")
    writer.write(1, "event_lines = tuple(lines)")


def write_call(writer: Writer, struct: type[Struct], prefix: str, names: Iterable[str]) -> str:
    """The expression of a struct with these fields, each of the variable with its name."""
    return f"{writer.bind(struct)}({', '.join(f'{name}={prefix}{name}' for name in names)})"


def list_types(struct: type[Struct]) -> dict[str, Any]:
    return {field.name: field.type for field in msgspec.structs.fields(struct)}


def list_required(struct: type[Struct]) -> tuple[str, ...]:
    return tuple(field.name for field in msgspec.structs.fields(struct) if field.required)
