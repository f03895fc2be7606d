"""docs/reference is what the code says, and names everything that can be declared."""

import pytest

from checks.reference import FOLDER, PAGES, build_page
from contract.features.source_meanings import describe_source
from contract.features.sources import is_known_source, list_sources
from contract.profiles.record import AGGREGATES
from contract.settings.reading import Settings
from contract.tasks import Task
from tests.docs.pages import MarkdownPage, strip_code_marks


@pytest.mark.parametrize("name", PAGES)
def test_a_reference_page_is_up_to_date(name: str) -> None:
    assert (FOLDER / name).read_text() == build_page(name), "`python -m checks.reference` should be run."


def test_every_source_exists_for_its_kinds_and_has_a_meaning() -> None:
    for source in list_sources():
        assert all(is_known_source(kind, source.name) for kind in source.kinds), source
        assert describe_source(source.name)


def test_the_pages_name_every_source_and_setting() -> None:
    # given the first cells of all tables of a page
    def read_cells(page: str, heading: str, column: str) -> list[str]:
        tables = MarkdownPage(FOLDER / page).tables(heading)
        return [strip_code_marks(row[column]) for table in tables for row in table if column in row]

    # then
    sources = read_cells("features.md", "Sources", "source")
    assert {source.name for source in list_sources() if not source.name.startswith("profile.")} < set(sources)
    assert read_cells("features.md", "Profiles", "AGGREGATE") == list(AGGREGATES)
    assert read_cells("tasks.md", "Tasks", "key") == list(Task.__struct_fields__)
    for name, title in (("model", "Model settings"), ("training", "Training settings")):
        assert read_cells(f"{name}.md", title, "key") == list(type(getattr(Settings(), name)).model_fields)
