"""What the functions that are generated from the sources of fields call, and what is found out about sources."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from contract.errors import BadEvent
from contract.events.decoding import decode_document
from contract.mapping.paths import Getter, Step, compile_path, parse_path, split_each
from contract.mapping.values import Convert, compile_table, compile_time
from contract.settings.mapping import MONEY_FIELDS, FieldSource, FieldSources


def find_list(sources: Mapping[str, FieldSource]) -> Sequence[Step] | None:
    """The steps to the list that the sources' paths go through."""
    paths = (parse_path(path) for source in sources.values() for path in source.paths)
    return next((parts[0] for path in paths if (parts := split_each(path)) is not None), None)


def make_check(placeholders: frozenset[str]) -> Callable[[Any], bool]:
    """Whether a value is an empty text or one of these."""
    texts = placeholders | {""}

    def says_nothing(value: Any) -> bool:
        kind = type(value)
        return (kind is str or kind is int) and str(value).strip().lower() in texts

    return says_nothing


def decode_text(value: Any) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def compile_key(key: str | bool) -> Callable[[bytes | None], Any]:
    """The function from a record's key to its text, or to the value at a path in a key that is JSON."""
    if not isinstance(key, str):
        return decode_text
    get: Getter = compile_path(parse_path(key))

    def read(value: bytes | None) -> Any:
        try:
            return get(decode_document(value)) if value else None
        except (BadEvent, UnicodeDecodeError):
            return None

    return read


def compile_convert(name: str, source: FieldSource) -> Convert | None:
    """The conversion of a value; that of money waits for the currency."""
    converts: list[Convert] = [compile_table(source.table)] if source.table else []
    if source.unit and name not in MONEY_FIELDS:
        converts.append(compile_time(source.unit))
    if len(converts) == 2:
        first, second = converts
        return lambda value: second(first(value))
    return converts[0] if converts else None


def list_sources(fields: FieldSources) -> Iterable[FieldSource]:
    for source in fields.values():
        yield from source.values() if isinstance(source, dict) else (source,)


def split_places(source: FieldSource) -> list[FieldSource]:
    """A source for each place of this one, in their order, without its default."""
    single = replace(source, paths=(), header=None, key=False, default=None)
    return [
        *(replace(single, paths=(path,)) for path in source.paths),
        *([replace(single, header=source.header)] if source.header else []),
        *([replace(single, key=source.key)] if source.key else []),
    ] or [source]
