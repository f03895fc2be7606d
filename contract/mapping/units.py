"""Where the units of mapped values are declared: by a map, by `[intake]`, or by both, so that they convert twice."""

from collections.abc import Iterable, Iterator
from typing import Final

from contract.settings.intake import IntakeSettings
from contract.settings.mapping import MONEY_FIELDS, FieldSource, MapTable, list_fields

CONVERTED: Final = ("s", "us", "ns")  # units of `intake.times` that change a number


def find_double_units(tables: Iterable[MapTable], intake: IntakeSettings) -> Iterator[str]:
    """A sentence for each field with a `unit` whose kind has one in `[intake]` too."""
    for table in tables:
        for kind in table.kinds:
            for place, source in list_places(table, kind):
                setting, unit = find_declared(place, kind, intake)
                if source.unit and unit:
                    yield (
                        f"`map.{table.name}.fields.{place}.unit` should be given where `{setting}` has no unit of "
                        f'{kind}, since each converts. Found "{source.unit}", and `{setting}.{kind} = "{unit}"`: leave '
                        "out one of them."
                    )


def name_unit_settings(tables: Iterable[MapTable]) -> dict[tuple[str, str], list[str]]:
    """The settings in maps that declare the unit of a field, by kind and field."""
    settings: dict[tuple[str, str], list[str]] = {}
    for table in tables:
        for kind in table.kinds:
            for place, _ in list_places(table, kind):
                settings.setdefault((kind, place), []).append(f"map.{table.name}.fields.{place}.unit")
    return settings


def list_places(table: MapTable, kind: str) -> Iterator[tuple[str, FieldSource]]:
    """The sources of a kind's fields in a map, by their places."""
    names = list_fields(kind)
    for name, source in table.fields.items():
        if name in names and isinstance(source, dict):
            yield from ((f"{name}.{part}", of_part) for part, of_part in source.items())
        elif name in names and isinstance(source, FieldSource):
            yield name, source


def find_declared(place: str, kind: str, intake: IntakeSettings) -> tuple[str, str]:
    """The setting of `[intake]` for values at a place, and the unit from which it converts, empty if from none."""
    if place.rpartition(".")[2] in MONEY_FIELDS:
        return "intake.money", "minor" if intake.is_minor(kind) else ""
    unit = intake.time_unit(kind)
    return "intake.times", unit if unit in CONVERTED else ""
