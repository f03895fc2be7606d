"""Which ids have a row of their own in embedding tables, update after update.

An id that was met in a few examples gets a row, and begins as the unknown row that it has been read as, optimizer and
all; one that was not met for long gives its row back. So tables stay within the `rows` of their shape while items and
users come and go. Until then unknown ids are counted, at most as many as a table has rows, the latest met.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from contract.settings import TrainingConfig
from model.checkpoint import Checkpoint
from model.feature_statistics import table_name
from model.network import Network
from model.vocabulary import KnownIds, update_known_ids
from training.data.examples import Examples

DAY_MS: Final = 86_400_000
Integers = npt.NDArray[np.int64]
ADAM_MOMENTS: Final = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")  # what AdamW remembers of each weight


@dataclass(frozen=True, slots=True)
class IdCounts:
    """Distinct ids in rising order, in how many examples each was met and when last; all (n,)."""

    ids: Integers
    count: Integers
    last_ms: Integers

    def take(self, rows: npt.NDArray[Any]) -> "IdCounts":
        return IdCounts(self.ids[rows], self.count[rows], self.last_ms[rows])

    def to_tensor(self) -> Tensor:
        return torch.from_numpy(np.stack([self.ids, self.count, self.last_ms], 1))

    def merge(self, other: "IdCounts") -> "IdCounts":
        """Both, counts added up."""
        ids, inverse = np.unique(np.concatenate([self.ids, other.ids]), return_inverse=True)
        count, last_ms = np.zeros_like(ids), np.zeros_like(ids)
        np.add.at(count, inverse, np.concatenate([self.count, other.count]))
        np.maximum.at(last_ms, inverse, np.concatenate([self.last_ms, other.last_ms]))
        return IdCounts(ids, count, last_ms)


def read_id_counts(tensor: Tensor) -> IdCounts:
    return IdCounts(*tensor.numpy().astype(np.int64).reshape(-1, 3).T.copy())


NO_IDS: Final = read_id_counts(torch.empty(0, 3, dtype=torch.int64))


def update_embedding_rows(checkpoint: Checkpoint, network: Network, new: Examples, plan: TrainingConfig) -> Checkpoint:
    """The checkpoint with ids counted, rows given to those met often and taken from those not met for long.

    All else, its version too, stays; `network` is its own. What it answers changes for ids that lost their row alone.
    """
    if not len(new):
        return checkpoint
    counts = count_ids(new, network)
    known, id_counts, rows = (
        dict(checkpoint.metadata.statistics.known),
        dict(checkpoint.id_counts),
        dict[str, Integers](),
    )
    now_ms = int(new.ts_ms.max())
    for table, new_counts in counts.items():
        ids = known[table].array
        unmet = IdCounts(ids, np.zeros_like(ids), np.full_like(ids, now_ms))  # of ids from before ids were counted
        previous = read_id_counts(id_counts[table]) if table in id_counts else NO_IDS
        missing = unmet.take(~np.isin(ids, previous.ids))
        merged = previous.merge(missing).merge(new_counts)
        freed, added, remembered = select_rows(merged, known[table], checkpoint.metadata.shape.rows, plan)
        id_counts[table] = remembered.to_tensor()
        if len(freed) or len(added):
            known[table], rows[table] = update_known_ids(known[table], freed, added)
    return replace(remap_checkpoint(checkpoint, network, known, rows), id_counts=id_counts)


def select_rows(
    id_counts: IdCounts, known: KnownIds, rows_max: int, plan: TrainingConfig
) -> tuple[Integers, Integers, IdCounts]:
    """Ids that lose their row, ids that get one, most often met first, and what is remembered of all others."""
    has_row = np.isin(id_counts.ids, known.array)
    is_unused = id_counts.last_ms < id_counts.last_ms.max(initial=0) - plan.unused_days * DAY_MS
    freed = id_counts.ids[has_row & is_unused]
    waiting = np.flatnonzero(~has_row & ~is_unused)
    frequent = waiting[id_counts.count[waiting] >= plan.row_after]
    room = max(rows_max - known.rows + len(freed), 0)
    added = id_counts.ids[frequent[np.argsort(-id_counts.count[frequent], kind="stable")][:room]]
    latest = waiting[np.argsort(-id_counts.last_ms[waiting], kind="stable")][:rows_max]
    is_remembered = has_row & ~is_unused
    is_remembered[latest] = True
    return freed, added, id_counts.take(is_remembered | np.isin(id_counts.ids, added))


def count_ids(examples: Examples, network: Network) -> dict[str, IdCounts]:
    """How often and when the ids of each embedding table were met in these examples, once in each row."""
    counts_by_table = dict[str, IdCounts]()
    for group in dict.fromkeys(group for _, group in network.trunks):
        for span in network.features.spans(group):
            ids = np.sort(examples.blocks[group].ids[:, span.start : span.start + span.width], 1)
            ids[:, 1:][ids[:, 1:] == ids[:, :-1]] = 0
            row, column = np.nonzero(ids)
            cells = ids[row, column]
            distinct, inverse = np.unique(cells, return_inverse=True)
            last_ms = np.zeros_like(distinct)
            np.maximum.at(last_ms, inverse, examples.ts_ms[row])
            table, id_counts = (
                table_name(span.feature),
                IdCounts(distinct, np.bincount(inverse, minlength=len(distinct)).astype(np.int64), last_ms),
            )
            counts_by_table[table] = counts_by_table[table].merge(id_counts) if table in counts_by_table else id_counts
    return counts_by_table


def remap_checkpoint(
    checkpoint: Checkpoint, network: Network, known: Mapping[str, KnownIds], rows: Mapping[str, Integers]
) -> Checkpoint:
    """The checkpoint with other vocabularies; `rows`: of each changed table, the former row of each row."""
    if not rows:
        return checkpoint
    statistics = msgspec.structs.replace(checkpoint.metadata.statistics, known=dict(known))
    source_rows = {
        name: torch.from_numpy(former) for table, former in rows.items() for name in network.table_parameters(table)
    }
    weights = {
        name: value[source_rows[name]] if name in source_rows else value for name, value in checkpoint.weights.items()
    }
    return replace(
        checkpoint,
        metadata=msgspec.structs.replace(checkpoint.metadata, statistics=statistics),
        weights=weights,
        optimizer=remap_optimizer(checkpoint.optimizer, network, source_rows),
    )


def remap_optimizer(
    optimizer: Mapping[str, Any], network: Network, source_rows: Mapping[str, Tensor]
) -> dict[str, Any]:
    """What the optimizer remembers, each row of a table being that of the row that it was or begins as."""
    state = dict(optimizer.get("state", {}))
    for number, (name, _) in enumerate(network.named_parameters()):
        if name in source_rows and number in state:
            state[number] = {
                key: value[source_rows[name]] if key in ADAM_MOMENTS else value for key, value in state[number].items()
            }
    return {**optimizer, "state": state} if optimizer else {}
