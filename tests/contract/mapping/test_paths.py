"""Paths into a document: what each step finds, and texts that are no path."""

import pytest

from contract.mapping.paths import BadPath, compile_path, parse_path

DOCUMENT = {
    "id": 5,
    "none": None,
    "customer": {"id": "u-1", "e.mail": "a"},
    "items": [{"sku": "a", "n": 1}, {"n": 2}, {"sku": "c"}],
    "params": [{"key": "page", "value": {"text": "/home"}}, {"key": "n", "value": {"number": 3}}],
    "text": "word",
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("id", 5),
        ("customer.id", "u-1"),
        ('customer."e.mail"', "a"),
        ("items[0].sku", "a"),
        ("items[-1].sku", "c"),
        ("items[3].sku", None),
        ("items[1].sku", None),
        ("items[].sku", ["a", "c"]),
        ("params[key=page].value.text", "/home"),
        ("params[key=n].value.number", 3),
        ("params[key=absent].value", None),
        ("none.id", None),
        ("id.deeper", None),
        ("text[0]", None),
        ("customer[]", None),
        ("absent.id", None),
    ],
)
def test_a_path_gives_the_value_at_its_place_or_none(path: str, value: object) -> None:
    assert compile_path(parse_path(path))(DOCUMENT) == value


@pytest.mark.parametrize("path", ["", ".", "a.", ".a", "a..b", "a[", "a[x]", "a b", "a[].b[].c", "a[]b", "[0]a", "|a"])
def test_a_text_that_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(BadPath, match="should"):
        parse_path(path)
