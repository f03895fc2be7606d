"""docs/list-rules.md describes every action, selector and field of list rules, and its examples are valid."""

import re
from pathlib import Path

import pytest

from contract.errors import BadConfig
from contract.features.declaration import FeatureSet
from contract.settings.list_rules import FIELDS, SELECTORS, ListRule, parse_list_rules
from tests.checkout import ROOT
from tests.docs.pages import MarkdownPage, strip_code_marks

PAGE = MarkdownPage(ROOT / "docs" / "list-rules.md")


def test_the_example_is_valid_until_a_field_is_misspelt() -> None:
    example = PAGE.code_block("toml rules")

    pin, exclude = parse_list_rules(example.encode(), Path("list-rules.toml"), FeatureSet(()))
    assert (pin.action, pin.items, exclude.brands) == ("pin", ("mug-red",), ("Northwind",))
    assert pin.span_ms[1] - pin.span_ms[0] == 86_400_000
    with pytest.raises(BadConfig):
        parse_list_rules(example.replace("brands", "brand").encode(), Path("list-rules.toml"), FeatureSet(()))


def test_the_page_has_every_action_with_its_fields_and_every_selector() -> None:
    (actions,), (selectors,) = PAGE.tables("Actions"), PAGE.tables("Selectors")
    fields = {strip_code_marks(row["action"]): row["its fields"] for row in actions}
    annotation = ListRule.model_fields["action"].annotation

    assert annotation is not None
    assert set(fields) == set(annotation.__args__)
    for field, of_actions in FIELDS.items():
        assert all(f"`{field}`" in fields[action] for action in of_actions), field
    described = {name for row in selectors for name in re.findall(r"`(\w+)`", row["selector"])}
    assert described == set(SELECTORS)
