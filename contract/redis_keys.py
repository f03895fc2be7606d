"""Ids as parts of Redis keys: percent-encoded where a character structures keys, reversibly and without collisions.

Colons separate the parts of a key and braces mark the hash tag of a cluster. These, the percent sign, control
characters and all that is not ASCII are written as `%` and two hexadecimal digits for each byte of their UTF-8. Every
other character stays, so the key of an id of letters, digits and common marks has the id as it is. Hashes and buckets
are those of the id itself, never of its escaped form.
"""

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote

ESCAPED: Final = re.compile(r"[^\x20-\x7e]|[%:{}]")
PLAIN: Final = bytes(byte for byte in range(128) if not ESCAPED.match(chr(byte)))  # what stays as it is
POPULAR: Final = "popular"  # in the place of a user's id: the popular list of everybody


def escape_id(ident: str) -> str:
    """An id, or another text, as a part of a key."""
    return ESCAPED.sub(escape_character, ident)


def escape_character(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode())


def escape_user_id(user_id: str) -> str:
    """A user's id as the last part of the key of an answer: that of a user called `popular` is `%70opular`."""
    return "%70opular" if user_id == POPULAR else escape_id(user_id)


def unescape_id(part: str) -> str:
    """The id that `escape_id` or `escape_user_id` made this part of a key of."""
    return unquote(part) if "%" in part else part


def escape_ids(idents: Sequence[str]) -> Sequence[str]:
    """`escape_id` of each; where none needs it, which one look at all of them tells, they are returned as given."""
    return idents if is_plain("".join(idents)) else [escape_id(ident) for ident in idents]


def is_plain(text: str) -> bool:
    """Whether an id of these characters is a part of a key as it is."""
    return text.isascii() and not text.encode().translate(None, PLAIN)


def escape_entity(entity: str) -> str:
    """An entity (`kind:id`) as the last part of a key: `kind:` and the escaped id."""
    kind, colon, ident = entity.partition(":")
    return f"{kind}{colon}{escape_id(ident)}"


def escape_entities(entities: Sequence[str]) -> Sequence[str]:
    """`escape_entity` of each; where none needs it, which one look at all of them tells, they are returned as given."""
    text = "".join(entities)
    if text.count(":") == len(entities) and text.isascii() and not text.encode().translate(None, PLAIN + b":"):
        return entities
    return [escape_entity(entity) for entity in entities]


def unescape_entity(part: str) -> str:
    """The entity that `escape_entity` made this part of a key of."""
    kind, colon, ident = part.partition(":")
    return f"{kind}{colon}{unescape_id(ident)}"
