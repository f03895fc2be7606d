"""The pages about maps: every map is valid, and every recipe reads its records as it says."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from contract.events.reading import READERS
from contract.events.times import TIME_UNITS
from contract.mapping.envelopes import Skipped
from contract.mapping.event_topics import EventTopics
from contract.settings.mapping import (
    CHANGES,
    ENVELOPES,
    FIELD_NAMES,
    MAP_NAMES,
    MAPPED_KINDS,
    MONEY_UNITS,
    read_maps,
)
from contract.settings.servers import TopicSettings

PAGE = Path("docs/mapping.md")
RECIPES = sorted(path for path in Path("docs/recipes").glob("*.md") if path.name != "README.md")


def read_blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)


def drop_absent(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: drop_absent(part) for name, part in value.items() if part is not None}
    return [drop_absent(part) for part in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("path", RECIPES, ids=[path.stem for path in RECIPES])
def test_a_recipe_reads_its_records_as_it_says(path: Path) -> None:
    # given the map, the records and the events of the page
    (table,) = read_blocks(path, "toml")
    records, expected = ([json.loads(line) for line in block.splitlines()] for block in read_blocks(path, "json"))
    (topic_map,) = EventTopics(TopicSettings(), tomllib.loads(table)["map"]).maps.values()
    # when
    events = []
    for record in records:
        try:
            kind, document = topic_map.read(json.dumps(record).encode())
        except Skipped:
            continue
        events.append(drop_absent(msgspec.to_builtins(READERS[kind].read_document(document))))
    # then
    assert events == expected


def test_the_maps_of_the_reference_are_valid() -> None:
    tables = [tomllib.loads(block) for block in read_blocks(PAGE, "toml")]
    assert [read_maps(table["map"])[0].kind for table in tables if "map" in table] == ["orders"]


def test_the_reference_has_every_setting_kind_and_unit() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.MULTILINE)
    assert set(rows) == {*MAP_NAMES, *FIELD_NAMES}
    words = set(re.findall(r"`(\w+)`", PAGE.read_text()))
    assert {*MAPPED_KINDS, *ENVELOPES, *TIME_UNITS, *MONEY_UNITS, *CHANGES} <= words


def test_the_list_of_recipes_is_complete() -> None:
    listed = re.findall(r"\]\(([\w-]+\.md)\)", Path("docs/recipes/README.md").read_text())
    assert sorted(set(listed)) == [path.name for path in RECIPES]
