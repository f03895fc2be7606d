"""Logged actions from a plain table, one row each: a shop's own logs, whatever made its lists.

    reward                    a number: 1 for a click, or what was earned
    propensity                the probability with which the policy that served chose the action here; null: unknown
    target                    the probability with which the new policy would choose the same action here
    action, position          optional: which action, and its place on the list
    unit                      optional: the user or the list; rows of one unit depend on each other
    context.NAME              optional: numbers or texts that are known before the choice
    actions, targets          optional lists: all actions that could be chosen here, with the new policy's probabilities
    propensities              optional list: with which the policy that served could choose each of them

With `actions` and `targets` the reward model predicts what the new policy chooses; with `propensities` too, the share
of its choices that the logs lack is exact.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contract.arrays import Array, Floats
from contract.errors import BadData
from training.offpolicy.logged_actions import LoggedActions, TargetChoices, encode_category, number_units
from training.scoring.table_reader import iterate_tables, read_list

REQUIRED: Final = ("reward", "propensity", "target")
SINGLE: Final = (*REQUIRED, "action", "position", "unit")
LISTS: Final = ("actions", "targets", "propensities")
CONTEXT_PREFIX: Final = "context."
SUM_TOLERANCE: Final = 0.001  # of the new policy's probabilities in a row


def read_logged_actions(path: Path, names: Mapping[str, str]) -> LoggedActions:
    """The rows of a Parquet or CSV file; `names`: the file's column of some of the above. Raises `BadData`."""
    tables = list(iterate_tables(path))
    if not tables or not any(map(len, tables)):
        raise BadData(f"{path} should hold logged actions. Found no rows.")
    table = pa.concat_tables(tables)
    columns = {name: names.get(name, name) for name in (*SINGLE, *LISTS)}
    if missing := [columns[name] for name in REQUIRED if columns[name] not in table.column_names]:
        raise BadData(f"{path} should have the columns {', '.join(missing)}. Found {', '.join(table.column_names)}.")
    if unknown := [column for column in names.values() if column not in table.column_names]:
        raise BadData(f"{path} should have the columns {', '.join(unknown)}. Found {', '.join(table.column_names)}.")
    return parse_logged_actions(table, columns)


def parse_logged_actions(table: pa.Table, columns: Mapping[str, str]) -> LoggedActions:
    """`columns`: the table's name of each column."""
    rows = len(table)
    reward, target = (parse_numbers(table, columns[name]) for name in ("reward", "target"))
    check_values(columns["reward"], np.isfinite(reward), "finite numbers")
    check_values(columns["target"], (target >= 0) & (target <= 1), "probabilities")
    context, categories = build_context(table, columns["position"])
    choices = None
    if columns["actions"] in table.column_names and columns["targets"] in table.column_names:
        codes, choices = build_choices(table, columns, context)
        context = np.column_stack([context, codes])
        categories = (*categories, context.shape[1] - 1)
    return LoggedActions(
        reward=reward,
        propensity=parse_numbers(table, columns["propensity"]),
        target=target,
        unit=number_units(read_texts(table, columns["unit"]))
        if columns["unit"] in table.column_names
        else np.arange(rows),
        exposure=np.ones(rows),
        target_exposure=np.ones(rows),
        columns=context,
        categories=categories,
        choices=choices,
    )


def parse_numbers(table: pa.Table, name: str) -> Floats:
    """A column's numbers (N,), NaN for null."""
    try:
        return np.array(pc.cast(table.column(name), pa.float64()).to_numpy(), np.float64)
    except pa.ArrowException as error:
        raise BadData(f"`{name}` should hold numbers. Found: {error}") from error


def check_values(name: str, is_right: Array, kind: str) -> None:
    if wrong := np.flatnonzero(~is_right).tolist():
        raise BadData(
            f"`{name}` should hold {kind} in every row. Found others in {len(wrong)}, first in row {wrong[0]}."
        )


def read_texts(table: pa.Table, name: str) -> Array:
    return np.array(table.column(name).to_pylist(), np.object_).astype(str)


def build_context(table: pa.Table, position: str) -> tuple[Floats, tuple[int, ...]]:
    """The position and the columns of the context (N, C), and which of them are codes."""
    parts, categories = [np.zeros(len(table))], list[int]()
    if position in table.column_names:
        parts[0] = encode_category(read_texts(table, position))[0]
        categories.append(0)
    for name in table.column_names:
        if name.startswith(CONTEXT_PREFIX):
            try:
                parts.append(parse_numbers(table, name))
            except BadData:
                categories.append(len(parts))
                parts.append(encode_category(read_texts(table, name))[0])
    return np.column_stack(parts), tuple(categories)


def build_choices(table: pa.Table, columns: Mapping[str, str], context: Floats) -> tuple[Floats, TargetChoices]:
    """The codes of the logged actions (N,), and what the new policy would choose in each row."""
    if columns["action"] not in table.column_names:
        raise BadData(f"A table with `{columns['actions']}` should have `{columns['action']}`. Found none.")
    offered, targets = (read_lists(table, columns[name]) for name in ("actions", "targets"))
    lengths = np.array([len(values) for values in offered])
    check_values(columns["targets"], lengths == [len(values) for values in targets], "as many values as actions")
    row = np.repeat(np.arange(len(table)), lengths)
    probability = flatten(targets)
    sums = np.bincount(row, weights=probability, minlength=len(table))
    check_values(columns["targets"], np.abs(sums - 1) <= SUM_TOLERANCE, "probabilities that sum to 1")
    propensity = None
    if columns["propensities"] in table.column_names:
        propensities = read_lists(table, columns["propensities"])
        check_values(
            columns["propensities"], lengths == [len(values) for values in propensities], "as many values as actions"
        )
        propensity = flatten(propensities)
    logged = read_texts(table, columns["action"])
    chosen = np.array([str(action) for actions in offered for action in actions], np.object_).astype(str)
    codes = encode_category(np.concatenate([logged, chosen]))[0]
    likely = np.flatnonzero(probability > 0)
    choices = TargetChoices(
        row=row[likely],
        probability=probability[likely],
        propensity=None if propensity is None else propensity[likely],
        columns=np.column_stack([context[row[likely]], codes[len(logged) :][likely]]),
        exposure=np.ones(len(likely)),
    )
    return codes[: len(logged)], choices


def read_lists(table: pa.Table, name: str) -> list[list[Any]]:
    """The lists of a column, also as JSON text, as in CSV files."""
    values = [read_list(value) for value in table.column(name).to_pylist()]
    check_values(name, np.array([value is not None for value in values]), "lists")
    return [value or [] for value in values]


def flatten(lists: list[list[Any]]) -> Floats:
    """The numbers of all lists, NaN for null."""
    try:
        return np.array([np.nan if value is None else value for values in lists for value in values], np.float64)
    except (TypeError, ValueError) as error:
        raise BadData(f"Lists of probabilities should hold numbers. Found: {error}") from error
