"""Ids in Redis keys: escaped reversibly, and as they are where they were allowed before."""

import string
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.profiles.record import entity_from_key, profile_key
from contract.redis_keys import escape_entities, escape_entity, escape_id, unescape_id

PLAIN: Final = string.ascii_letters + string.digits + "._~@+=/#$&*!, -"
ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=128)


@given(ident=ids)
def test_an_id_is_read_back_from_its_key(ident: str) -> None:
    assert unescape_id(escape_id(ident)) == ident
    assert entity_from_key(profile_key(f"user:{ident}")) == f"user:{ident}"


@given(first=ids, second=ids)
def test_two_ids_have_two_keys(first: str, second: str) -> None:
    assert (escape_id(first) == escape_id(second)) is (first == second)
    assert (f"{escape_id(first)}:{escape_id(second)}").count(":") == 1


@given(ident=st.text(PLAIN, min_size=1, max_size=128))
def test_an_id_of_letters_digits_and_common_marks_is_its_own_part_of_a_key(ident: str) -> None:
    assert escape_id(ident) == ident


@given(entities=st.lists(ids.map(lambda ident: f"user:{ident}"), max_size=5))
def test_entities_are_escaped_together_as_one_by_one(entities: list[str]) -> None:
    assert list(escape_entities(entities)) == [escape_entity(entity) for entity in entities]


@pytest.mark.parametrize(
    ("ident", "part"),
    [
        ("gid://shopify/Product/1", "gid%3A//shopify/Product/1"),
        ("{6F96}", "%7B6F96%7D"),
        ("Gr\u00f6\u00dfe-42", "Gr%C3%B6%C3%9Fe-42"),
        ("50%", "50%25"),
        ("a\nb", "a%0Ab"),
        ("auth0|5f7c", "auth0|5f7c"),
    ],
)
def test_what_structures_keys_is_escaped(ident: str, part: str) -> None:
    assert escape_id(ident) == part


def test_a_part_that_is_no_escaped_id_is_no_mistake() -> None:
    assert unescape_id("%FF") == "\ufffd"
