"""Vocabularies: which row of an embedding table an id has, exactly, by operators that ONNX has.

    row 0                  absent
    rows 1 ... spare       unknown: not met often enough in the training part, or never; by remainder
    the rows behind        one for each known id, the most frequent of the training part first, then as they came

A known id is found through slots: `id mod slots` names a slot of a few ids, of which one is it or none. So no two
ids are taken for each other, and there is no id that fails.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from msgspec import Struct
from torch import Tensor, nn

COUNT_MIN: Final = 2  # an id met once teaches what ids are like that are hardly known
SPARE_MAX: Final = 1_024
SMALL_MAX: Final = 256  # up to so many ids a slot of one id each is looked for
CANDIDATES_COUNT: Final = 48  # numbers of slots

Integers = npt.NDArray[np.int64]


class KnownIds(Struct, frozen=True):
    """The known ids of a table, int64 little-endian, in the order of their rows; `spare`: rows for unknown ones."""

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
    """The vocabulary of the ids (n,) that a training part holds, as often as it does; at most `rows_max` rows."""
    distinct, counts = np.unique(ids[ids != 0], return_counts=True)
    frequent = np.flatnonzero(counts >= COUNT_MIN)
    order = frequent[np.argsort(-counts[frequent], kind="stable")]
    spare = min(max(len(distinct) - len(order), 1), SPARE_MAX, rows_max // 4)
    selected = order[: rows_max - 1 - spare]
    return KnownIds(distinct[selected].astype("<i8").tobytes(), spare)


def update_known_ids(known: KnownIds, freed: Integers, added: Integers) -> tuple[KnownIds, Integers]:
    """The vocabulary without the ids that are freed and with those that are added, and the former row of each row.

    An added id begins as the unknown row that it was read as, so nothing that is answered changes by it; a freed id is
    read as an unknown one again. Neither is among the ids that stay.
    """
    before = known.array
    stays = ~np.isin(before, freed)
    ids = np.concatenate([before[stays], added])
    first = np.arange(1 + known.spare)
    rows = np.concatenate([first, 1 + known.spare + np.flatnonzero(stays), 1 + added % known.spare])
    return KnownIds(ids.astype("<i8").tobytes(), known.spare), rows


class Vocabulary(nn.Module):
    """Ids of any shape -> rows of the same shape. It follows from `known`, so no checkpoint carries its buffers."""

    slots: Tensor
    rows: Tensor

    def __init__(self, known: KnownIds) -> None:
        super().__init__()
        self.spare = known.spare
        slots, rows = build_slots(known.array, 1 + known.spare)
        self.register_buffer("slots", torch.from_numpy(slots), persistent=False)  # (M, width) ids, 0: none
        self.register_buffer("rows", torch.from_numpy(rows), persistent=False)  # (M, width)

    def forward(self, ids: Tensor) -> Tensor:
        slot = ids.remainder(len(self.slots))  # (...), of whatever sign the id is
        known_row = torch.where(self.slots[slot] == ids.unsqueeze(-1), self.rows[slot], 0).sum(-1)  # (...)
        row = torch.where(known_row > 0, known_row, 1 + ids.remainder(self.spare))
        return torch.where(ids == 0, 0, row)


def build_slots(ids: Integers, first_row: int) -> tuple[Integers, Integers]:
    """Slots (M, width) of ids and of their rows, for the number of slots that needs the least width of those tried."""
    count = min(candidate_slot_counts(len(ids)), key=lambda count: largest_slot(ids, count))
    slots = np.zeros((count, largest_slot(ids, count)), np.int64)
    rows, slot = np.zeros_like(slots), ids % count
    order = np.argsort(slot, kind="stable")
    within = np.arange(len(ids)) - np.searchsorted(slot[order], slot[order])
    slots[slot[order], within], rows[slot[order], within] = ids[order], first_row + order
    return slots, rows


def candidate_slot_counts(ids: int) -> list[int]:
    """Odd numbers of slots: for few ids up to 64 for each, for many about two."""
    least = 2 * ids + 1
    if ids > SMALL_MAX:
        return [least + 2 * step for step in range(CANDIDATES_COUNT // 6)]
    return [int(least * 32 ** (step / CANDIDATES_COUNT)) | 1 for step in range(CANDIDATES_COUNT)]


def largest_slot(ids: Integers, count: int) -> int:
    return int(np.bincount(ids % count).max(initial=1)) if len(ids) else 1
