"""Blocks on the wire: float32 numbers and int64 ids, little-endian, row by row, exactly as they were served."""

from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from contract.features.declaration import Block, FeatureSet


class PackedBlock(Struct, frozen=True, gc=False, array_like=True):
    """A `Block` as bytes: its number of rows, float32 numbers and int64 ids, row by row."""

    rows: int
    numbers: bytes
    ids: bytes

    def unpack(self) -> Block:
        """The block; a block without rows loses its width."""
        width = -1 if self.rows else 0
        return Block(
            np.frombuffer(self.numbers, "<f4").reshape(self.rows, width),
            np.frombuffer(self.ids, "<i8").reshape(self.rows, width),
        )


def pack(block: Block) -> PackedBlock:
    return PackedBlock(len(block), *block_to_bytes(block))


def pack_rows(block: Block) -> list[PackedBlock]:
    """Each row as a block of its own."""
    numbers, ids = to_row_bytes(block.numbers, "<f4"), to_row_bytes(block.ids, "<i8")
    return list(map(PackedBlock, repeat(1), numbers, ids))


def pack_spans(block: Block, ends: Sequence[int]) -> list[PackedBlock]:
    """Consecutive spans of rows, each up to its end (exclusive), as blocks of their own."""
    numbers, ids = block_to_bytes(block)
    n, m = 4 * block.numbers.shape[1], 8 * block.ids.shape[1]  # bytes of a row
    spans = zip([0, *ends], ends, strict=False)
    return [PackedBlock(end - begin, numbers[n * begin : n * end], ids[m * begin : m * end]) for begin, end in spans]


def block_to_bytes(block: Block) -> tuple[bytes, bytes]:
    """Numbers and ids, row by row."""
    return block.numbers.astype("<f4", copy=False).tobytes(), block.ids.astype("<i8", copy=False).tobytes()


def to_row_bytes(columns: npt.NDArray[Any], dtype: str) -> list[bytes]:
    """Each row of (N, C) as bytes; NumPy makes them of rows that it takes for single elements, without type."""
    rows = np.ascontiguousarray(columns, dtype)
    width = rows.itemsize * rows.shape[1]
    return rows.view(f"V{width}").ravel().tolist() if width else [b""] * len(rows)


def split_rows(blocks: Mapping[str, Block]) -> list[dict[str, PackedBlock]]:
    """The blocks of N events as N rows, as they are logged."""
    groups = {group: pack_rows(block) for group, block in blocks.items()}
    rows = zip(*groups.values(), strict=True)
    return list(map(dict, map(zip, repeat(tuple(groups)), rows)))  # a call of `zip` with `strict` costs more


def unpack_blocks(groups: Mapping[str, PackedBlock], features: FeatureSet, digest: str) -> dict[str, Block]:
    """The blocks of a row whose columns are those of `features`; raises ValueError for a row of another set."""
    if digest != features.digest:
        raise ValueError(f"A row should have the features {features.digest}. Found {digest}.")
    return {group: packed.unpack() for group, packed in groups.items()}
