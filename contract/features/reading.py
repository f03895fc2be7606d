"""Reading `features.toml`: every mistake with its place (file, line, table, key) and the nearest right name."""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, get_args

import msgspec

from contract.errors import BadConfig
from contract.features.declaration import Feature, FeatureSet, Group, Kind, find_mistakes
from contract.features.sources import describe_nearest
from contract.profiles.entity_kinds import DeclaredEntity
from contract.profiles.record import ENTITY_KINDS

TABLE: Final = re.compile(r"^\s*\[\[\s*features\s*\]\]")
KEYS: Final = ("name", "group", "kind", "source", "size")  # `entity` is not written by hand
CHOICES: Final = {"group": get_args(Group), "kind": get_args(Kind)}


def read_features(path: Path, entities: Sequence[DeclaredEntity] = ()) -> FeatureSet:
    """The features declared in a TOML file as `[[features]]`; raises `BadConfig` with every error.

    `entities`: those that the shop declares, whose profiles may be sources.
    """
    try:
        text = path.read_text("utf-8-sig")  # some editors begin with a byte order mark
        document = tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:  # the second of TOML, of UTF-8, and of a path with a zero
        raise BadConfig([f"{path.name} should declare features. Found: {error}"]) from error
    tables = document.get("features", [])
    if unknown := sorted(document.keys() - {"features"}):
        raise BadConfig(
            [
                f"{path.name} should declare features as [[features]] tables. Found `{name}`"
                f"{describe_nearest(name, ['features'])}."
                for name in unknown
            ]
        )
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise BadConfig([f"{path.name} should declare features as [[features]] tables. Found {tables!r}."])
    places = [f"{path.name}, {place}" for place in describe_places(text, tables)]
    errors = [
        f"{path.name} should declare features as [[features]] with {', '.join(KEYS)}. {sentence} ({place})"
        for place, table in zip(places, tables, strict=True)
        for sentence in find_table_mistakes(table)
    ]
    if errors:
        raise BadConfig(errors)
    sources_by_kind = {entity.kind: entity for entity in entities}
    features = [declare(msgspec.convert(table, Feature), sources_by_kind) for table in tables]
    mistakes = list(find_mistakes(features))
    if mistakes:
        known = sorted({*ENTITY_KINDS, *sources_by_kind})
        raise BadConfig(
            [
                f"{mistake.sentence[:-1]}{describe_nearest_kind(features[mistake.number], known)}."
                f" ({places[mistake.number]})"
                for mistake in mistakes
            ]
        )
    return FeatureSet(features)


def declare(feature: Feature, entities: Mapping[str, DeclaredEntity]) -> Feature:
    """The feature with the declaration of its entity, if the shop declares that itself."""
    entity = entities.get(feature.entity_kind or "")
    return feature if entity is None else msgspec.structs.replace(feature, entity=entity.meaning)


def describe_places(text: str, tables: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Where each table is; without its line if the file writes tables in another form than `[[features]]`."""
    lines = [number for number, line in enumerate(text.splitlines(), 1) if TABLE.match(line)]
    for number, table in enumerate(tables):
        line = f"line {lines[number]}, " if len(lines) == len(tables) else ""
        yield f"{line}[[features]] number {number + 1}, `{table.get('name', 'without a name')}`"


def find_table_mistakes(table: Mapping[str, Any]) -> Iterator[str]:
    """Unknown and missing keys and values of other types, as sentences."""
    for key in table.keys() - set(KEYS):
        yield f"Found the unknown key `{key}`{describe_nearest(key, list(KEYS))}."
    for key in KEYS[:-1]:
        if key not in table:
            yield f"Found no `{key}`."
        elif not isinstance(table[key], str):
            yield f"`{key}` should be a text. Found {table[key]!r}."
        elif key in CHOICES and table[key] not in CHOICES[key]:
            nearest = describe_nearest(table[key], list(CHOICES[key]))
            yield f"`{key}` should be one of {', '.join(CHOICES[key])}. Found `{table[key]}`{nearest}."
    size = table.get("size", 0)
    if isinstance(size, bool) or not isinstance(size, int):
        yield f"`size` should be a whole number. Found {size!r}."


def describe_nearest_kind(feature: Feature, known: list[str]) -> str:
    """The kinds of entities that have profiles, if that of a feature is none."""
    kind = feature.entity_kind
    if kind is None or kind in known:
        return ""
    return f"; `{kind}` is no entity{describe_nearest(kind, known)}, declare it as [entities.{kind}] or use {known}"
