"""Reads tables of interactions, Parquet or CSV, and states what of them is not used and why.

user_id, item_id     text
ts_ms                ms since 1970 or dates, optional: without it rows are in the order of time
action               click, cart or order, optional: click
quantity, price      numbers, optional: rows of returns and rows that are not readable are left out

Columns and actions have the other names, too, that `NAMES` and `ACTIONS` list, in any case.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq

from contract.arrays import Mask
from contract.errors import BadData
from contract.events.times import PER_MS, PLAUSIBLE_MS, guess_unit, read_time
from contract.events.values import Unreadable
from contract.profiles.erasures import Erasures
from contract.settings.intake import IntakeSettings
from export.neighbours import encode_ids
from training.data.erased_rows import drop_erased
from training.data.identity import read_ids
from training.next_item.histories import History

log = logging.getLogger(__name__)
# Of several columns with names of one kind, the one that is named first here.
NAMES: Final = {
    "user_id": ("user_id", "user", "userid", "customer_id", "customerid", "visitor_id", "visitorid"),
    "item_id": ("item_id", "item", "itemid", "product_id", "productid", "sku"),
    "ts_ms": ("ts_ms", "time", "timestamp", "event_time", "datetime"),
    "action": ("action", "event", "event_type"),
}
ACTIONS: Final = dict.fromkeys(("click", "view", "pageview", "pv"), 1)
ACTIONS.update(dict.fromkeys(("cart", "addtocart", "add_to_cart"), 2))
ACTIONS.update(dict.fromkeys(("order", "purchase", "buy", "transaction"), 3))
NUMBERS: Final = ("quantity", "price")
TEXTS: Final = ("user_id", "item_id", "action")  # in CSV too: a number would lose its zeros
DEFAULTS: Final = IntakeSettings()
SAME_MAX: Final = 20  # interactions of a user with one item; of more the latest count
TS_MS_MAX: Final = 32_503_680_000_000  # the year 3000
SCHEMA: Final = pa.schema(
    [("user_id", pa.string()), ("item_id", pa.string()), ("ts_ms", pa.int64()), ("action", pa.int8())]
)


class InteractionTable(NamedTuple):
    """`table`: usable rows by `SCHEMA`, by user and time. `left_out`: rows by reason. `has_times`: else in order."""

    table: Any
    left_out: dict[str, int]
    has_times: bool

    def to_history(self) -> History:
        names, item = np.unique(encode_ids(self.table, "item_id"), return_inverse=True)
        user = np.unique(encode_ids(self.table, "user_id"), return_inverse=True)[1]
        ts_ms, action = (self.table.column(name).to_numpy() for name in ("ts_ms", "action"))
        order = np.lexsort((ts_ms, user))  # stable: interactions at one time stay in the order of the rows
        return History(user[order], item[order], ts_ms[order], action[order], names, self.has_times)


def read_interaction_tables(
    paths: Sequence[Path], erasures: Erasures, intake: IntakeSettings = DEFAULTS
) -> InteractionTable:
    """The usable rows of all files, without those of erased people; raises `BadData` for files of another kind.

    `intake`: its placeholders stand for no user and no item; those who share one would be one user of all guests.
    """
    tables, left_out, has_times = list[Any](), Counter[str](), True
    for path in paths:
        raw = convert_times(rename_columns(read_file(path), path), path)
        has_times = has_times and "ts_ms" in raw.column_names
        tables.append(clean(raw, left_out, intake.folded_placeholders))
    table = pa.concat_tables([SCHEMA.empty_table(), *tables])
    kept = drop_erased(table, erasures)
    left_out["of erased people"] += len(table) - len(kept)
    unique = drop_repeated(kept, left_out)
    return InteractionTable(unique, {reason: count for reason, count in left_out.items() if count}, has_times)


def read_file(path: Path) -> Any:
    try:
        if path.name.removesuffix(".gz").endswith((".csv", ".tsv")):
            parsing = csv.ParseOptions(delimiter="\t" if ".tsv" in path.name else ",")
            with csv.open_csv(path, parse_options=parsing) as reader:
                own = find_columns(reader.schema.names)
            texts = {own[name]: pa.string() for name in TEXTS if name in own}
            converting = csv.ConvertOptions(column_types=texts, strings_can_be_null=True)
            return csv.read_csv(path, parse_options=parsing, convert_options=converting)
        return pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise BadData(f"{path} should be interactions as Parquet or CSV. Found: {error}") from error


def find_columns(names: Sequence[str]) -> dict[str, str]:
    """A table's own name of each column that is read."""
    own = {name.strip().lower(): name for name in reversed(names)}
    synonyms = NAMES | {name: (name,) for name in NUMBERS}
    return {
        name: own[present]
        for name, known in synonyms.items()
        if (present := next((other for other in known if other in own), None))
    }


def rename_columns(table: Any, path: Path) -> Any:
    """The columns that are read, with their own names; raises `BadData` if users or items are missing."""
    own = find_columns(table.column_names)
    if missing := [name for name in ("user_id", "item_id") if name not in own]:
        known = "; ".join(" or ".join(f"`{other}`" for other in NAMES[name]) for name in missing)
        columns = ", ".join(f"`{name}`" for name in table.column_names)
        raise BadData(f"{path} should have columns of users and items ({known}). Found {columns}.")
    return table.select(list(own.values())).rename_columns(list(own))


def convert_times(table: Any, path: Path) -> Any:
    """The table with its times in ms, as numbers; says so where they look like another unit."""
    if "ts_ms" not in table.column_names:
        return table
    values = read_times(table.column("ts_ms"))
    median = np.nanmedian(values) if np.isfinite(values).any() else np.nan
    unit = guess_unit(int(median)) if np.isfinite(median) else ""
    if unit and (unit != "s" or int(median * 1000) in PLAUSIBLE_MS):  # small numbers may be ms of no calendar
        log.warning("Times of %s should be in ms. They look like %s and are read as such.", path, unit)
        values = values * 1000 if unit == "s" else values // PER_MS[unit]
    index = table.column_names.index("ts_ms")
    return table.set_column(index, "ts_ms", pa.array(values))


def clean(table: Any, left_out: Counter[str], placeholders: frozenset[str]) -> Any:
    """The usable rows by `SCHEMA`; each other row is counted once, by its first reason."""
    count, is_usable = len(table), np.ones(len(table), np.bool_)
    users, items = (read_ids(table.column(name)) for name in ("user_id", "item_id"))
    ts_ms, is_time = check_times(table)
    actions, is_action = read_actions(table)
    reasons = {
        "without user or item": np.array(
            [bool(user) and bool(item) for user, item in zip(users, items, strict=True)], np.bool_
        ),
        "of a user or item that is a placeholder": np.array(
            [placeholders.isdisjoint(ids) for ids in zip(map(fold, users), map(fold, items), strict=True)], np.bool_
        ),
        "of a time that is not readable": is_time,
        "of an unknown action": is_action,
        **{f"of a {name} that is not positive": is_positive(table, name, count) for name in NUMBERS},
    }
    for reason, is_valid in reasons.items():
        left_out[reason] += int((is_usable & ~is_valid).sum())
        is_usable &= is_valid
    arrays = [pa.array(users, pa.string()), pa.array(items, pa.string()), pa.array(ts_ms), pa.array(actions)]
    return pa.table(arrays, schema=SCHEMA).filter(pa.array(is_usable))


def fold(ident: str) -> str:
    """An id as placeholders are compared with it."""
    return ident.strip().lower()


def read_times(column: Any) -> Any:
    """Times as numbers (N,): dates in ms, NaN for what is neither."""
    if pa.types.is_date(column.type):
        column = pc.cast(column, pa.timestamp("ms"))
    if pa.types.is_timestamp(column.type):
        column = pc.cast(pc.cast(column, pa.timestamp("ms", column.type.tz), safe=False), pa.int64())
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return np.array([read_text_time(value) for value in column.to_pylist()], np.float64)
    return to_floats(column)


def read_text_time(value: str | None) -> float:
    try:
        return float("nan") if value is None else read_time(value, "iso")
    except Unreadable:
        return parse_number(value)


def check_times(table: Any) -> tuple[Any, Mask]:
    """Times in ms (N,), and which are readable. Without a column: the numbers of the rows."""
    if "ts_ms" not in table.column_names:
        return np.arange(len(table), dtype=np.int64), np.ones(len(table), np.bool_)
    values = to_floats(table.column("ts_ms"))
    is_valid = np.isfinite(values) & (values >= 0) & (values <= TS_MS_MAX)
    return np.where(is_valid, values, 0).astype(np.int64), is_valid


def read_actions(table: Any) -> tuple[Any, Mask]:
    """Codes of actions (N,), and which are known. Without a column: clicks."""
    if "action" not in table.column_names:
        return np.ones(len(table), np.int8), np.ones(len(table), np.bool_)
    codes = np.array(
        [ACTIONS.get(str(value).strip().lower(), 0) for value in table.column("action").to_pylist()], np.int8
    )
    return codes, codes > 0


def is_positive(table: Any, name: str, count: int) -> Mask:
    """Where a column is a finite number above 0 (a price: from 0 on) or unknown; everywhere without the column."""
    if name not in table.column_names:
        return np.ones(count, np.bool_)
    column = table.column(name)
    values, is_unknown = to_floats(column), np.asarray(column.is_null())
    is_large = values >= 0 if name == "price" else values > 0
    return np.asarray(is_unknown | (np.isfinite(values) & is_large))


def to_floats(column: Any) -> Any:
    """A column's numbers (N,), NaN for what is none."""
    try:
        return np.asarray(pc.cast(column, pa.float64()).to_numpy(), np.float64)
    except pa.ArrowException:
        return np.array([parse_number(value) for value in column.to_pylist()], np.float64)


def parse_number(value: object) -> float:
    try:
        return float(str(value))
    except ValueError:
        return float("nan")


def drop_repeated(table: Any, left_out: Counter[str]) -> Any:
    """The rows without duplicates, and of a user's interactions with one item the latest `SAME_MAX`."""
    distinct = table.group_by(SCHEMA.names, use_threads=False).aggregate([]).select(SCHEMA.names)
    left_out["twice in the table"] += len(table) - len(distinct)
    keys = [(name, "ascending") for name in ("user_id", "item_id")] + [("ts_ms", "descending")]
    ordered = distinct.take(pc.sort_indices(distinct, sort_keys=keys))
    user, item = (
        np.asarray(ordered.column(name).combine_chunks().dictionary_encode().indices) for name in SCHEMA.names[:2]
    )
    begins = np.append(True, (np.diff(user) != 0) | (np.diff(item) != 0))[: len(ordered)]
    rank = np.arange(len(ordered)) - np.maximum.accumulate(np.where(begins, np.arange(len(ordered)), 0))
    left_out[f"of a user with one item beyond the latest {SAME_MAX}"] += int((rank >= SAME_MAX).sum())
    kept = ordered.filter(pa.array(rank < SAME_MAX))
    return kept.take(
        pc.sort_indices(kept, sort_keys=[("user_id", "ascending"), ("ts_ms", "ascending"), ("item_id", "ascending")])
    )
