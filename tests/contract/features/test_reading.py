"""Reading features.toml: every mistake is told with its place and the nearest right name."""

import re
from pathlib import Path

import pytest

from contract.errors import BadConfig
from contract.features.reading import read_features
from contract.profiles.entity_kinds import DeclaredEntity

GOOD = '[[features]]\nname = "amount"\ngroup = "order"\nkind = "number"\nsource = "event.amount"\n'
EMAIL = DeclaredEntity("email", "event.attributes.email")


def read_errors(path: Path, text: str) -> list[str]:
    path.write_text(text)
    with pytest.raises(BadConfig) as caught:
        read_features(path, [EMAIL])
    return caught.value.errors


@pytest.mark.parametrize(
    ("line", "wrong", "words"),
    [
        ("source", 'source = "event.amuont"', "; the nearest is `event.amount`"),
        ("source", 'source = "event.atributes.browser"', "; the nearest is `event.attributes.browser`"),
        ("source", 'source = "profile.device.orders.count_1dd"', "; the nearest is `profile.device.orders.count_1d`"),
        ("source", 'source = "profile.emial.orders.count_1d"', "`emial` is no entity; the nearest is `email`"),
        ("source", 'source = "profile.phone.orders.count_1d"', r"declare it as \[entities.phone\]"),
        ("source", 'source = "event.attributes."', "should have a source that exists"),
        ("source", 'sorce = "event.amount"', "unknown key `sorce`; the nearest is `source`"),
        ("source", "source = 3", "`source` should be a text. Found 3"),
        ("kind", 'kind = "numbr"', "Found `numbr`; the nearest is `number`"),
        ("group", 'group = "orders"', "Found `orders`; the nearest is `order`"),
        ("name", 'entity = "x"', "unknown key `entity`"),
        ("kind", 'kind = "vector"\nsize = "2"', "`size` should be a whole number. Found '2'"),
    ],
)
def test_a_mistake_is_told_with_line_table_and_nearest_name(tmp_path: Path, line: str, wrong: str, words: str) -> None:
    # given a second table with a mistake, from line 7 on
    lines = [wrong if text.startswith(f"{line} ") else text for text in GOOD.replace("amount", "total", 1).split("\n")]
    # when
    errors = read_errors(tmp_path / "features.toml", f"{GOOD}\n" + "\n".join(lines))
    # then
    assert all("features.toml, line 7, [[features]] number 2" in error for error in errors)
    assert any(re.search(words, error) for error in errors), errors


def test_a_table_of_another_name_is_refused_with_the_nearest(tmp_path: Path) -> None:
    assert read_errors(tmp_path / "features.toml", GOOD + GOOD.replace("features", "feature")) == [
        "features.toml should declare features as [[features]] tables. Found `feature`; the nearest is `features`."
    ]


def test_all_wrong_tables_are_told_at_once(tmp_path: Path) -> None:
    errors = read_errors(tmp_path / "features.toml", GOOD.replace("event.", "evnt.") + GOOD.replace("event.", "itm."))
    assert len(errors) == 3  # two sources, and a name that is there twice


def test_a_feature_on_a_declared_entity_keeps_its_declaration(tmp_path: Path) -> None:
    path = tmp_path / "features.toml"
    path.write_text(GOOD.replace("event.amount", "profile.email.orders.sum_7d"))
    (feature,) = read_features(path, [EMAIL]).features
    assert feature.entity == "event.attributes.email"


@pytest.mark.parametrize("content", ["x = " + "[" * 5_000, "[[features]", "\0"])
def test_a_file_that_is_no_toml_and_a_path_that_no_file_has_are_told(content: str, tmp_path: Path) -> None:
    path = tmp_path / "features.toml"
    path.write_text(content)
    for named in (path, Path("a\0b")):
        with pytest.raises(BadConfig, match=r"should declare features\. Found: "):
            read_features(named)
