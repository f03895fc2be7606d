"""Interactions of users with items as Parquet (user_id, item_id, ts_ms), the source of neighbours and popularity."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from contract.errors import BadData

SCHEMA: Final = pa.schema([("user_id", pa.string()), ("item_id", pa.string()), ("ts_ms", pa.int64())])


def read_all(sources: Iterable[Path | bytes]) -> Any:
    """The tables of several sources as one; raises `BadData`."""
    return pa.concat_tables([SCHEMA.empty_table(), *map(read_interactions, sources)])


def read_interactions(source: Path | bytes) -> Any:
    """The table in a Parquet file or its bytes (no bytes: an empty table); raises `BadData`."""
    if source == b"":
        return SCHEMA.empty_table()
    try:
        table = pq.read_table(io.BytesIO(source) if isinstance(source, bytes) else source)
        return table.select(SCHEMA.names).cast(SCHEMA)
    except (OSError, KeyError, pa.ArrowException) as error:
        raise BadData(f"Interactions should be Parquet with {SCHEMA.names}. Found: {error}") from error
