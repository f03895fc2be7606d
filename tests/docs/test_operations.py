"""docs/operations.md describes every setting, with its default and environment variable, and every lane."""

import re
from pathlib import Path
from typing import Final

import msgspec
import pytest
from pydantic import BaseModel

from contract.settings.reading import Settings
from tests.docs.pages import OPERATIONS, PAGES, MarkdownPage, strip_code_marks
from worker.records.lanes import LANES

# Environment variables that are not settings.
OTHER_VARIABLES: Final = {"SHOPSTREAM_CONFIG", "SHOPSTREAM_STEP_FILE", "SHOPSTREAM_DATA"}


def list_settings(section: type[BaseModel], prefix: str = "") -> dict[str, object]:
    """Every setting by its full name, with its default."""
    values: dict[str, object] = {}
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            values |= list_settings(field.annotation, f"{prefix}{name}.")
        else:
            values[prefix + name] = field.get_default()
    return values


def format_default(default: object) -> str:
    """A default as it is written in the file."""
    if default is None:
        return "none"
    value = str(default) if isinstance(default, Path) else default
    return f"`{msgspec.json.encode(value).decode()}`"


def read_settings_table() -> list[dict[str, str]]:
    (table,) = OPERATIONS.tables("Settings")
    return table


def test_every_setting_is_documented_with_its_default() -> None:
    settings = {name: format_default(default) for name, default in list_settings(Settings).items()}

    assert {strip_code_marks(row["setting"]): row["default"] for row in read_settings_table()} == settings


def test_every_setting_is_documented_with_its_environment_variable() -> None:
    for row in read_settings_table():
        name = "SHOPSTREAM_" + strip_code_marks(row["setting"]).upper().replace(".", "__")

        assert strip_code_marks(row["environment"]) == name


@pytest.mark.parametrize("page", PAGES, ids=[page.path.name for page in PAGES])
def test_pages_name_only_environment_variables_that_exist(page: MarkdownPage) -> None:
    known = (
        {strip_code_marks(row["environment"]) for row in read_settings_table()}
        | OTHER_VARIABLES
        | {"SHOPSTREAM_SECTION__NAME"}
    )

    assert set(re.findall(r"SHOPSTREAM_[A-Z_]+", page.text)) <= known


@pytest.mark.parametrize("lane", LANES)
def test_the_row_of_a_lane_names_its_command_group_and_kinds(lane: str) -> None:
    # given the row of the lane's command
    (table,) = OPERATIONS.tables("Processes")
    (row,) = (row for row in table if strip_code_marks(row["command"]) == f"python -m worker score --lane {lane}")

    # then it describes the lane as the code defines it
    kinds = LANES[lane]
    folds, watches, inspects, confirms = map(
        ", ".join, (kinds.folded_kinds, kinds.watched_kinds, kinds.inspected_kinds, kinds.confirmed_kinds)
    )
    assert f"folds {folds}" in row["what it does"]
    assert (f"watches {watches}" in row["what it does"]) if watches else "watches" not in row["what it does"]
    assert f"inspects {inspects}" in row["what it does"]
    assert ("confirms" in row["what it does"]) == bool(confirms)
    assert not confirms or f"confirms {confirms}" in row["what it does"]
    assert strip_code_marks(row["group"]) == f"{Settings().kafka.group_prefix}-{lane}"
