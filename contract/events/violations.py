"""What msgspec says of a value that breaks its type, as one of the reasons of dead letters."""

import re
from typing import Final

from contract.events.values import NOT_UTF8

ID_PATH: Final = re.compile(r"of length .*(_id|\])`$")  # a field that is named so, or an entry of a list
FRAGMENTS: Final = (
    (NOT_UTF8, "not_utf8"),
    ("missing required field", "missing_field"),
    ("of length", "too_long"),
    ("out of range", "out_of_range"),
    ("> ", "out_of_range"),
    (">=", "out_of_range"),
    ("<=", "out_of_range"),
)


def classify_violation(message: str) -> str:
    """The reason of `REASONS` for a validation message of msgspec."""
    if "`str` of length" in message and ID_PATH.search(message):
        return "bad_id"
    return next((reason for fragment, reason in FRAGMENTS if fragment in message), "wrong_type")


def place_violation(message: str, path: str) -> str:
    """A message about a part of a document with that part's path in the document."""
    text, separator, inner = message.rpartition(" - at `$")
    return f"{text} - at `{path}{inner}" if separator else f"{message} - at `{path}`"
