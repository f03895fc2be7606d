"""Documents of a shop's files, such as lines of JSON or rows; and rows that are one document together."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

from contract.errors import BadData

GROUP_ROWS_MAX: Final = 10_000  # five times the lines of the largest order


@dataclass(frozen=True, slots=True)
class UnclearRow:
    """A row with more cells than names: a value has a separator in it, so that it is not known which cell is whose."""

    cells: int
    names: int


Document: TypeAlias = bytes | dict[str, Any] | UnclearRow  # of a line the bytes of JSON, of a row its cells by column


def group_rows(rows: Iterator[Document], group_by: str, name: str, path: Path) -> Iterator[Document]:
    """One document for consecutive rows of the file `path` that share a value in the column `group_by`.

    It has the first value of each column, and the rows under `name`. A row without the value, or with more cells than
    names, is a document of its own; where the latter stands within a group, all of the group is unclear, since a part
    of an order would count as the order. Raises `BadData` for a group without an end.
    """
    group, unclear = list[dict[str, Any]](), list[UnclearRow]()  # unclear: after the last row of the group
    interruption: UnclearRow | None = None
    for row in rows:
        if not row:
            continue  # an empty line
        if isinstance(row, UnclearRow):
            unclear.append(row)
            continue
        value = cast(dict[str, Any], row).get(group_by)
        if group and value == group[0][group_by]:
            interruption = interruption or next(iter(unclear), None)
        else:
            yield from end_group(group, name, interruption)
            yield from unclear
            group, interruption = [], None
        unclear.clear()
        if value is None:
            yield row
            continue
        group.append(cast(dict[str, Any], row))
        if len(group) > GROUP_ROWS_MAX:
            raise BadData(
                f"{path} should have at most {GROUP_ROWS_MAX} consecutive rows with one value of {group_by}. "
                f"Found more with {value!r}."
            )
    yield from end_group(group, name, interruption)
    yield from unclear


def end_group(rows: list[dict[str, Any]], name: str, interruption: UnclearRow | None) -> Iterator[Document]:
    """The document of a group, if it has rows: what interrupts it in place of an interrupted one."""
    if rows:
        yield interruption or join_rows(rows, name)


def join_rows(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    joined = {column: value for row in reversed(rows) for column, value in row.items()}
    return {**joined, name: rows}
