"""The function that builds an event's document, generated as Python text from the sources of its fields.

Calls of closures, one or two for each field, took three times as long as the statements that this module writes. Only
names and constants reach the text, by `repr`; all else is bound by a name.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from contract.events.decoding import open_entries
from contract.mapping.paths import ABSENT_ERRORS, Step, compile_path, parse_path, split_each
from contract.mapping.shapes import Place
from contract.mapping.sources import (
    compile_convert,
    compile_key,
    decode_text,
    find_list,
    list_sources,
    make_check,
    split_places,
)
from contract.mapping.values import add_addresses, join_texts, scale_money
from contract.settings.mapping import FieldSource, FieldSources

Document = dict[str, Any]
Headers = Mapping[str, bytes]
Build = Callable[[Any, bytes | None, Headers], Document]
Source = Callable[[Any, bytes | None, Headers], Any]
DOCUMENT: Final = "document"
ENTRY: Final = "entry"
NULLABLE: Final = {("event", "user_id"), ("line", "item_id")}  # required ids that may be null in our own form too


def compile_fields(
    fields: FieldSources,
    nested: Mapping[str, tuple[str, ...]],
    placeholders: frozenset[str],
    shape: Place | None = None,
) -> Build:
    """The function from a record to the document of its event.

    `nested`: the fields that an event may have, with those of one entry of lines. `placeholders`: what stands for no
    id, in lower case. `shape`: of structs in place of documents.
    """
    writer = Writer(placeholders, shape)
    writer.write(0, "def build(document, key, headers):")
    writer.open_objects(1, DOCUMENT, [path for source in list_sources(fields) for path in source.paths])
    writer.write(1, "event = {}")
    for name, source in fields.items():
        if name not in nested:
            continue  # of another kind of this map
        if not isinstance(source, dict):
            if name == "ip" and source.join_with is None:
                writer.write_addresses(1, source)
            else:
                writer.write_source(1, name, source)
            writer.write_assignment(1, "event", name)
        elif nested[name]:
            writer.write_lines(name, source)
        else:
            writer.write_object(source)
            writer.write(1, "if part:")
            writer.write(2, f"event[{name!r}] = part")
    writer.write_money(fields, nested)
    writer.write(1, "return event")
    build: Build = writer.compile("build")
    return build


def compile_source(source: FieldSource, shape: Place | None = None) -> Source:
    """The function from a record to the value at one source."""
    writer = Writer(frozenset(), shape)
    writer.write(0, "def read(document, key, headers):")
    writer.open_objects(1, DOCUMENT, source.paths)
    writer.write_source(1, "", source)
    writer.write(1, "return value")
    read: Source = writer.compile("read")
    return read


class Writer:
    """Writes the text of a function; `names` are what it refers to.

    `shape`: of structs that it reads; without, it reads documents.
    """

    def __init__(self, placeholders: frozenset[str], shape: Place | None) -> None:
        self._placeholders = placeholders
        self._shapes: dict[str, Place | None] = {DOCUMENT: shape, ENTRY: None}
        self._objects: dict[tuple[str, ...], str] = {}  # variables with the objects of a shape, by root and names
        self._lines: list[str] = []
        self._names: dict[str, Any] = {"ABSENT": ABSENT_ERRORS}

    def compile(self, name: str) -> Any:
        exec("\n".join(self._lines), self._names)
        return self._names[name]

    def write(self, depth: int, line: str) -> None:
        self._lines.append("    " * depth + line)

    def bind(self, value: object) -> str:
        """A name for an object that the function uses."""
        name = f"bound_{len(self._names)}"
        self._names[name] = value
        return name

    def _bind_check(self, name: str) -> str:
        return self.bind(make_check(self._placeholders if name.endswith("_id") else frozenset()))

    def write_source(
        self,
        depth: int,
        name: str,
        source: FieldSource,
        *,
        list_steps: Sequence[Step] | None = None,
        target: str = "value",
    ) -> None:
        """Set the variable `target` to the first value of a source.

        `list_steps`: of the list whose entries the paths go through. An empty text, or a placeholder for an id, counts
        only where no later place has a value.
        """
        places = [self._locate(path, list_steps) for path in source.paths]
        if source.join_with is not None:
            self._write_join(depth, places, source.join_with, target)
            self._write_conversion(depth, name, source, target)
            return
        if source.header:
            places.append((False, f"{self.bind(decode_text)}(headers.get({source.header!r}))"))
        if source.key:
            places.append((False, f"{self.bind(compile_key(source.key))}(key)"))
        if not places:
            self.write(depth, f"{target} = {self.bind(source.constant)}")
            return
        inner = depth
        says_nothing = self._bind_check(name) if len(places) > 1 else ""
        for number, (may_fail, expression) in enumerate(places):
            if number:
                self.write(inner, f"if {target} is None or {says_nothing}({target}):")
                inner += 1
                self.write(inner, f"earlier_{inner} = {target}")
            if may_fail:
                self.write(inner, "try:")
                self.write(inner + 1, f"{target} = {expression}")
                self.write(inner, "except ABSENT:")
                self.write(inner + 1, f"{target} = None")
            else:
                self.write(inner, f"{target} = {expression}")
        for deeper in range(inner, depth, -1):
            self.write(deeper, f"if {target} is None:")
            self.write(deeper + 1, f"{target} = earlier_{deeper}")
        self._write_conversion(depth, name, source, target)

    def write_addresses(self, depth: int, source: FieldSource) -> None:
        """Set `value` to the addresses at all places, of which the event's reader takes the first public one."""
        sources = split_places(source)
        if len(sources) == 1:
            self.write_source(depth, "ip", source)
            return
        self.write(depth, "addresses = []")
        for part in sources:
            self.write_source(depth, "ip", part)
            self.write(depth, f"{self.bind(add_addresses)}(addresses, value)")
        self.write(depth, f"value = addresses or {self.bind(source.default)}")

    def _write_join(self, depth: int, places: Sequence[tuple[bool, str]], separator: str, target: str) -> None:
        """Set the variable `target` to the text of the values at all places, or to None if one of them has none."""
        expression = f"{self.bind(partial(join_texts, separator))}({', '.join(place for _, place in places)})"
        if not any(may_fail for may_fail, _ in places):
            self.write(depth, f"{target} = {expression}")
            return
        self.write(depth, "try:")
        self.write(depth + 1, f"{target} = {expression}")
        self.write(depth, "except ABSENT:")
        self.write(depth + 1, f"{target} = None")

    def _write_conversion(self, depth: int, name: str, source: FieldSource, target: str) -> None:
        convert = compile_convert(name, source)
        default = source.default if source.default is not None else source.constant
        if convert:
            self.write(depth, f"if {target} is not None:")
            self.write(depth + 1, f"{target} = {self.bind(convert)}({target})")
        if default is not None:
            self.write(depth, "else:" if convert else f"if {target} is None:")
            self.write(depth + 1, f"{target} = {self.bind(default)}")

    def write_assignment(self, depth: int, document: str, name: str) -> None:
        """Set a field of a document to `value`, if there is one; `NULLABLE` ids also to None."""
        if (document, name) not in NULLABLE:
            self.write(depth, "if value is not None:")
            depth += 1
        self.write(depth, f"{document}[{name!r}] = value")

    def _locate(self, path: str, list_steps: Sequence[Step] | None) -> tuple[bool, str]:
        """Whether the expression of a path may raise, and the expression."""
        steps, root = parse_path(path), DOCUMENT
        if list_steps is not None and (parts := split_each(steps)) is not None:
            steps, root = parts[1], ENTRY
        if not steps:
            return False, root
        if shape := self._shapes[root]:
            return self._locate_in_shape(root, shape, steps)
        if not all(isinstance(step, str) for step in steps):
            return False, f"{self.bind(compile_path(steps))}({root})"
        return True, f"{root}{''.join(f'[{step!r}]' for step in steps[:-1])}.get({steps[-1]!r})"

    def _locate_in_shape(self, root: str, shape: Place, steps: Sequence[Step]) -> tuple[bool, str]:
        names, place = list[str](), shape
        while place.is_object and len(names) < len(steps) and (step := str(steps[len(names)])) in place.fields:
            parent, place = place, place.fields[step]
            names.append(step)
        variable = self._objects.get((root, *names[:-1]), root)
        value = f"{variable}.{parent.attribute_of(names[-1])}"
        if variable != root:
            value = f"({value} if {variable} is not None else None)"
        rest = steps[len(names) :]
        return False, f"{self.bind(compile_path(rest))}({value})" if rest else value

    def open_objects(self, depth: int, root: str, paths: Iterable[str]) -> None:
        """Set a variable to each object that paths of a shape go through."""
        if (shape := self._shapes[root]) is None:
            return
        for steps in map(parse_path, paths):
            if root == ENTRY:
                parts = split_each(steps)
                steps = parts[1] if parts else ()
            names, place = list[str](), shape
            while len(names) < len(steps) and (step := str(steps[len(names)])) in place.fields:
                names.append(step)
                place = place.fields[step]
                if not place.is_object:
                    break
                if (root, *names) not in self._objects:
                    _, value = self._locate_in_shape(root, shape, names)
                    self._objects[root, *names] = f"object_{len(self._objects)}"
                    self.write(depth, f"{self._objects[root, *names]} = {value}")

    def write_lines(self, name: str, sources: Mapping[str, FieldSource]) -> None:
        """One document for each entry of the list that the paths go through; the record itself if none does."""
        list_steps = find_list(sources)
        entries = self.locate_list(list_steps) if list_steps is not None else "[document]"
        self.write(1, f"value = {entries}")
        self.write(1, "if not isinstance(value, list):")
        self.write(2, f"value = {self.bind(open_entries)}(value)")
        self.write(1, "if isinstance(value, list):")
        self.write(2, "lines = []")
        self.write(2, "for entry in value:")
        self.write(3, "line = {}")
        self.open_objects(3, ENTRY, [path for source in sources.values() for path in source.paths])
        for field, source in sources.items():
            self.write_source(3, field, source, list_steps=list_steps)
            self.write_assignment(3, "line", field)
        self.write(3, "lines.append(line)")
        self.write(2, f"event[{name!r}] = lines")
        self.write(1, "elif value is not None:")
        self.write(2, f"event[{name!r}] = value")

    def locate_list(self, steps: Sequence[Step]) -> str:
        """The expression of the list that lines are read of."""
        place = self._shapes[DOCUMENT]
        if place is None or not steps:
            return f"{self.bind(compile_path(steps))}({DOCUMENT})"
        _, value = self._locate_in_shape(DOCUMENT, place, steps)
        for step in steps:
            place = place.fields.get(str(step)) if place is not None and place.is_object else None
        self._shapes[ENTRY] = place.entries if place is not None and place.is_list else None
        return value

    def write_object(self, sources: Mapping[str, FieldSource]) -> None:
        """Set `part` to a table of values, such as attributes."""
        self.write(1, "part = {}")
        for field, source in sources.items():
            self.write_source(1, "", source)
            self.write(1, "if value is not None:")
            self.write(2, f"part[{field!r}] = value")

    def write_money(self, fields: FieldSources, nested: Mapping[str, tuple[str, ...]]) -> None:
        """Convert amounts in minor units, once the currency is known."""
        money: list[tuple[str, str]] = []
        for name, source in fields.items():
            if isinstance(source, FieldSource):
                money += [("", name)] if source.unit == "minor" and name in nested else []
            elif nested.get(name):
                money += [(name, field) for field, part in source.items() if part.unit == "minor"]
        for lines, field in money:
            self.write(1, f"{self.bind(scale_money)}(event, {lines!r}, {field!r})")
