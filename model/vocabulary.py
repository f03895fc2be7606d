"""Vocabularies: the exact row of an id in an embedding table, by operators that ONNX has.

    row 0                  absent
    rows 1 ... spare       out-of-vocabulary: rare or missing in the training part; by remainder
    further rows           one for each known id, the most frequent of the training part first, then in order of arrival

A known id is found by a hash table: `id mod slots` selects a slot of a few ids, which are compared. So no two ids are
confused, and every id has a row.
"""

from typing import Final

import numpy as np
import torch
from msgspec import Struct
from torch import Tensor, nn

from contract.arrays import Integers

COUNT_MIN: Final = 2  # ids seen once train the out-of-vocabulary rows
SPARE_MAX: Final = 1_024
SMALL_MAX: Final = 256  # up to this number of ids, slots of one id each are searched for
CANDIDATES_COUNT: Final = 48  # numbers of slots to try


class KnownIds(Struct, frozen=True):
    """The known ids of a table, int64 little-endian, in the order of their rows; `spare`: out-of-vocabulary rows."""

    ids: bytes
    spare: int = 1

    @property
    def array(self) -> Integers:
        """The ids (n,)."""
        return np.frombuffer(self.ids, "<i8").astype(np.int64)

    @property
    def rows(self) -> int:
        return 1 + self.spare + len(self.ids) // 8


def select_known_ids(ids: Integers, rows_max: int) -> KnownIds:
    """The vocabulary of all ids (n,) of a training part, with repetitions; at most `rows_max` rows."""
    distinct, counts = np.unique(ids[ids != 0], return_counts=True)
    frequent = np.flatnonzero(counts >= COUNT_MIN)
    order = frequent[np.argsort(-counts[frequent], kind="stable")]
    spare = min(max(len(distinct) - len(order), 1), SPARE_MAX, rows_max // 4)
    selected = order[: rows_max - 1 - spare]
    return KnownIds(distinct[selected].astype("<i8").tobytes(), spare)


def update_known_ids(known: KnownIds, freed: Integers, added: Integers) -> tuple[KnownIds, Integers]:
    """The vocabulary without `freed` and with `added` ids, and the previous row of each row.

    An added id starts with its out-of-vocabulary row, so that no prediction changes; a freed id gets it back. `added`
    ids are not known, `freed` ids are.
    """
    before = known.array
    stays = ~np.isin(before, freed)
    ids = np.concatenate([before[stays], added])
    first = np.arange(1 + known.spare)
    rows = np.concatenate([first, 1 + known.spare + np.flatnonzero(stays), 1 + added % known.spare])
    return KnownIds(ids.astype("<i8").tobytes(), known.spare), rows


class Vocabulary(nn.Module):
    """Ids of any shape -> rows of the same shape. Its buffers follow from `known` and are not in checkpoints."""

    slots: Tensor
    rows: Tensor

    def __init__(self, known: KnownIds) -> None:
        super().__init__()
        self.spare = known.spare
        slots, rows = build_slots(known.array, 1 + known.spare)
        self.register_buffer("slots", torch.from_numpy(slots), persistent=False)  # (M, width) ids, 0: none
        self.register_buffer("rows", torch.from_numpy(rows), persistent=False)  # (M, width)

    def forward(self, ids: Tensor) -> Tensor:
        slot = ids.remainder(len(self.slots))  # (...), not negative for any sign of the id
        known_row = torch.where(self.slots[slot] == ids.unsqueeze(-1), self.rows[slot], 0).sum(-1)  # (...)
        row = torch.where(known_row > 0, known_row, 1 + ids.remainder(self.spare))
        return torch.where(ids == 0, 0, row)


def build_slots(ids: Integers, first_row: int) -> tuple[Integers, Integers]:
    """Slots (M, width) of ids and of their rows, for the tried number of slots with the least width."""
    count = min(candidate_slot_counts(len(ids)), key=lambda count: largest_slot(ids, count))
    slots = np.zeros((count, largest_slot(ids, count)), np.int64)
    rows = np.zeros_like(slots)
    slot = ids % count
    order = np.argsort(slot, kind="stable")
    within = np.arange(len(ids)) - np.searchsorted(slot[order], slot[order])
    slots[slot[order], within] = ids[order]
    rows[slot[order], within] = first_row + order
    return slots, rows


def candidate_slot_counts(ids: int) -> list[int]:
    """Odd numbers of slots: up to 64 for each of few ids, about two for each of many."""
    least = 2 * ids + 1
    if ids > SMALL_MAX:
        return [least + 2 * step for step in range(CANDIDATES_COUNT // 6)]
    return [int(least * 32 ** (step / CANDIDATES_COUNT)) | 1 for step in range(CANDIDATES_COUNT)]


def largest_slot(ids: Integers, count: int) -> int:
    return int(np.bincount(ids % count).max(initial=1)) if len(ids) else 1
