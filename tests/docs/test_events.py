"""docs/events.md describes events and answers as the code defines them."""

from collections.abc import Callable
from typing import Any, Final

import msgspec
import pytest
from msgspec import inspect

from contract.events.guests import GuestId
from contract.events.model import (
    AHEAD_MS_MAX,
    ATTRIBUTES_MAX,
    KINDS,
    LIST_ITEMS_MAX,
    REASONS,
    RECORD_BYTES_MAX,
    TEXT_CHARS_MAX,
    Event,
    Id,
    Ids,
    Ip,
    Line,
    Millis,
    Money,
    Word,
)
from contract.events.reading import decode
from contract.messages import DEAD_LETTER_HEADER, DeadLetter, Decision, Example, Ranking, ScoredRow
from contract.settings.servers import TopicSettings
from tests.docs.pages import EVENTS, strip_code_marks

NAME_BY_TYPE: Final = [
    (inspect.type_info(alias), name)
    for alias, name in (
        (Id, "id"),
        (GuestId, "id of at most 120 characters"),
        (Ip, "ip"),
        (Word, "word"),
        (str, "text"),
        (Money, "money"),
    )
]
OUTPUTS: Final[dict[str, type[msgspec.Struct]]] = {
    "Decision": Decision,
    "Ranking": Ranking,
    "Scored": ScoredRow,
    "Example": Example,
    "Dead letters": DeadLetter,
}


def type_in_words(kind: inspect.Type) -> str:
    """A field's type in the words of docs/events.md."""
    for known, name in NAME_BY_TYPE:
        if kind == known:
            return name
    match kind:
        case inspect.UnionType(types=(inspect.IntType(), inspect.FloatType(gt=gt, le=le))):
            return f"number above {gt:g}, at most {le:,.0f}"
        case inspect.UnionType(types=types):
            return " or ".join(type_in_words(member) for member in types if not isinstance(member, inspect.NoneType))
        case inspect.LiteralType(values=values):
            return choice_in_words([str(value) for value in values])
        case inspect.BoolType():
            return "true or false"
        case inspect.DictType():
            return "attributes"
        case inspect.VarTupleType(min_length=least, max_length=most, item_type=item):
            return list_in_words(least, most, item)
    return number_in_words(kind)


def number_in_words(kind: inspect.Type) -> str:
    match kind:
        case inspect.IntType(ge=ge, le=le):
            return f"integer, {ge:,} to {le:,}"
        case inspect.FloatType(ge=None, le=None):
            return "number"
        case inspect.FloatType(ge=ge, le=le):
            return f"number, {ge:g} to {le:g}"
    raise NotImplementedError(kind)


def list_in_words(least: int | None, most: int | None, item: inspect.Type) -> str:
    match item:
        case inspect.StructType():
            return f"{least} to {most:,} {item.cls.__name__.lower()}s"
        case inspect.StrType(max_length=None):
            return f"list of at most {most:,} texts"
        case inspect.FloatType():
            return f"list of at most {most:,} numbers"
    return "ids"


def choice_in_words(values: list[str]) -> str:
    return " ".join(sorted(values))


def parse_type_cell(cell: str) -> str:
    """The type in a cell; the order of alternatives does not matter, and milliseconds are an integer."""
    if cell == "ms":
        return "integer, 0 to 9,007,199,254,740,992"
    return choice_in_words(cell.split("`")[1::2]) if cell.startswith("`") else cell


def read_fields(struct: type[msgspec.Struct]) -> dict[str, tuple[str, str]]:
    fields_by_name = inspect.type_info(struct)
    assert isinstance(fields_by_name, inspect.StructType)
    return {field.name: (type_in_words(field.type), "yes" if field.required else "") for field in fields_by_name.fields}


def read_documented_fields(heading: str, table: int = 0) -> dict[str, tuple[str, str]]:
    return {
        strip_code_marks(r["field"]): (parse_type_cell(r["type"]), r["needed"]) for r in EVENTS.tables(heading)[table]
    }


@pytest.mark.parametrize(("kind", "struct"), KINDS.items())
def test_every_field_of_an_event_is_documented_with_type_and_need(kind: str, struct: type[Event]) -> None:
    assert read_documented_fields(struct.__name__) == read_fields(struct)


def test_every_field_of_an_order_line_is_documented() -> None:
    assert read_documented_fields("Order", table=1) == read_fields(Line)


@pytest.mark.parametrize(("heading", "struct"), OUTPUTS.items())
def test_every_field_of_an_answer_is_documented(heading: str, struct: type[msgspec.Struct]) -> None:
    (table, *_) = EVENTS.tables(heading)

    assert [strip_code_marks(row["field"]) for row in table] == list(struct.__struct_fields__)


def test_every_topic_is_documented_with_its_default_name_and_record() -> None:
    # given the topics of the settings
    names = TopicSettings().names_by_kind()

    # when the table is read
    (table,) = EVENTS.tables("Topics")

    # then they are the same, and the row of an event names its struct
    assert {strip_code_marks(row["kind"]): strip_code_marks(row["topic"]) for row in table} == names
    records = {strip_code_marks(row["kind"]): row["record"] for row in table}
    assert all(records[kind].startswith(f"[{struct.__name__}]") for kind, struct in KINDS.items())


def test_every_dead_letter_reason_is_documented_with_its_meaning() -> None:
    reasons = EVENTS.tables("Dead letters")[1]

    assert {strip_code_marks(row["reason"]): row["meaning"] for row in reasons} == REASONS


def test_the_header_of_a_dead_letter_is_documented() -> None:
    assert f"`{DEAD_LETTER_HEADER}`" in EVENTS.section("Dead letters")


def test_documented_bounds_equal_those_of_the_code() -> None:
    (table,) = EVENTS.tables("Types and bounds")
    types = {row["type"]: row["what it holds"] for row in table}

    assert f"{RECORD_BYTES_MAX:,} bytes" in EVENTS.section("Types and bounds")
    assert f"more than {AHEAD_MS_MAX // 60_000} minutes ahead" in EVENTS.section("Types and bounds")
    assert f"over {TEXT_CHARS_MAX} characters" in types["text"]
    assert f"at most {LIST_ITEMS_MAX:,} ids" in types["ids"]
    assert f"at most {ATTRIBUTES_MAX} [attributes]" in types["attributes"]
    assert f"after {TEXT_CHARS_MAX} characters, a list after {LIST_ITEMS_MAX:,} numbers" in EVENTS.section("Attributes")
    assert read_fields(Line)["unit_price"] == ("money", "yes")
    assert inspect.type_info(Ids) == inspect.VarTupleType(item_type=inspect.type_info(Id), max_length=LIST_ITEMS_MAX)
    assert inspect.type_info(Money) == inspect.FloatType(ge=0, le=1_000_000_000)
    assert inspect.type_info(Millis) == inspect.IntType(ge=0, le=9_007_199_254_740_992)
    assert types["money"].startswith("a number, 0 to 1,000,000,000,")
    assert types["ms"].startswith("an integer, 0 to 9,007,199,254,740,992:")


@pytest.mark.parametrize(("kind", "struct"), KINDS.items())
def test_fields_documented_as_text_are_truncated(kind: str, struct: type[Event]) -> None:
    # given the example of the event with every text too long
    texts = [name for name, (type_name, _) in read_documented_fields(struct.__name__).items() if type_name == "text"]
    example = msgspec.json.decode(dict(EVENTS.examples())[kind])
    example |= dict.fromkeys(texts, "x" * 1_000)

    # when it is decoded
    event = decode(kind, msgspec.json.encode(example))

    # then each is cut to its bound
    assert all(len(getattr(event, name)) == TEXT_CHARS_MAX for name in texts)


@pytest.mark.parametrize("kind", KINDS)
def test_the_example_of_an_event_decodes_without_unknown_fields(kind: str) -> None:
    example = dict(EVENTS.examples())[kind]

    event = decode(kind, example.encode())

    assert type(event) is KINDS[kind]
    assert set(msgspec.json.decode(example)) <= set(event.__struct_fields__)


ANSWERS: Final[dict[str, type[msgspec.Struct]]] = {
    "decision": Decision,
    "ranking": Ranking,
    "scored": ScoredRow,  # MessagePack on the wire; as JSON, bytes are base64
    "example": Example,
    "dead_letter": DeadLetter,
}


@pytest.mark.parametrize(("name", "struct"), ANSWERS.items())
def test_the_example_of_an_answer_decodes_and_encodes_to_itself(name: str, struct: type[msgspec.Struct]) -> None:
    example = dict(EVENTS.examples())[name]

    answer = msgspec.json.decode(example, type=struct)

    assert msgspec.json.decode(msgspec.json.encode(answer)) == read_defaults(struct) | msgspec.json.decode(example)


def read_defaults(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """The defaults of the optional fields, as JSON values."""
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(struct):
        make: Callable[[], Any] | Any = field.default_factory
        if field.default is msgspec.UNSET:
            continue
        if field.default is not msgspec.NODEFAULT:
            values[field.name] = msgspec.to_builtins(field.default)
        elif make is not msgspec.NODEFAULT:
            values[field.name] = make()
    return values
