"""Rows of erased people in tables: every reader of examples leaves them out, before anything is derived from them.

The time of a row is its `ts_ms`: when its event happened, for an item of a list when it was shown. A row without a time
counts as older than every erasure.
"""

from typing import Any

import numpy as np
import pyarrow as pa

from contract.arrays import Mask
from contract.profiles.erasures import Erasures
from training.data.identity import read_ids, read_times_ms

IDENTITY: tuple[str, str] = ("user_id", "ts_ms")


def find_erased(table: Any, erasures: Erasures) -> Mask:
    """The rows (N,) of a table that an erasure covers; none without a column `user_id`."""
    if not len(erasures) or "user_id" not in table.column_names:
        return np.zeros(len(table), np.bool_)
    user_ids = read_ids(table.column("user_id"))
    times_ms = (
        read_times_ms(table.column("ts_ms"), "ts_ms").to_pylist() if "ts_ms" in table.column_names else [0] * len(table)
    )
    covered = (erasures.covers(user_id, ts_ms or 0) for user_id, ts_ms in zip(user_ids, times_ms, strict=True))
    return np.fromiter(covered, np.bool_, len(table))


def drop_erased(table: Any, erasures: Erasures) -> Any:
    """The rows of a table that no erasure covers; the table itself if it has no other."""
    is_erased = find_erased(table, erasures)
    return table.filter(pa.array(~is_erased)) if is_erased.any() else table
