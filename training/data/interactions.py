"""User–item interactions of examples, counted at export; see `export.interactions`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from export.interactions import SCHEMA
from training.data.examples import Examples
from training.data.parquet import encode_table, write_atomically

INTERACTIONS_MAX: Final = 500_000  # the latest interactions that a checkpoint carries


def extract_interactions(examples: Examples) -> Any:
    """The table of clicked and bought items: the positive labels of the binary recommendation tasks."""
    is_positive = np.zeros(len(examples), np.bool_)
    for task in examples.tasks:
        if task.graph == "recommend" and task.kind == "binary":
            is_positive |= examples.labels[task.name] == 1
    is_positive &= examples.item_id != ""
    columns = [examples.user_id[is_positive], examples.item_id[is_positive], examples.ts_ms[is_positive]]
    return pa.table([pa.array(column, kind.type) for column, kind in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)


def write_interactions(path: Path, interactions: Sequence[tuple[str, str, int, str]]) -> None:
    """Write (user_id, item_id, ts_ms, action) as Parquet, atomically."""
    schema = SCHEMA.append(pa.field("action", pa.string()))
    columns = list(zip(*interactions, strict=True)) or [(), (), (), ()]
    arrays = [pa.array(column, kind.type) for column, kind in zip(columns, schema, strict=True)]
    write_atomically(path, encode_table(pa.table(arrays, schema=schema)))


def merge_interactions(*tables: Any) -> bytes:
    """The distinct interactions of all tables as Parquet, the latest `INTERACTIONS_MAX` of them."""
    merged = pa.concat_tables(tables).group_by(SCHEMA.names).aggregate([])
    order = pc.sort_indices(merged, sort_keys=[(name, "ascending") for name in ("ts_ms", "user_id", "item_id")])
    return encode_table(merged.take(order[-INTERACTIONS_MAX:]).select(SCHEMA.names))
