"""Allocation of embedding rows over updates: which ids have a row of their own in each embedding table.

An id that was seen in enough examples gets a row, initialised from the out-of-vocabulary row that it used before,
optimizer state included. An id that was not seen for long loses its row. So tables stay within the `rows` of the model
config while items and users come and go. Ids without a row are counted, at most as many as a table has rows, the most
recently seen.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec
import numpy as np
import torch
from torch import Tensor

from contract.arrays import Array, Integers
from contract.settings.training import TrainingConfig
from contract.units import DAY_MS
from model.checkpoint import Checkpoint
from model.feature_statistics import table_name
from model.network import Network
from model.vocabulary import KnownIds, update_known_ids
from training.data.examples import Examples

ADAM_MOMENTS: Final = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")  # the state that AdamW has of each weight


@dataclass(frozen=True, slots=True)
class IdCounts:
    """Distinct ids in rising order, the number of examples with each, and the time of the last one; all (n,)."""

    ids: Integers
    count: Integers
    last_ms: Integers

    def take(self, rows: Array) -> "IdCounts":
        return IdCounts(self.ids[rows], self.count[rows], self.last_ms[rows])

    def to_tensor(self) -> Tensor:
        return torch.from_numpy(np.stack([self.ids, self.count, self.last_ms], 1))

    def merge(self, other: "IdCounts") -> "IdCounts":
        """The ids of both, their counts added up."""
        ids, inverse = np.unique(np.concatenate([self.ids, other.ids]), return_inverse=True)
        count = np.zeros_like(ids)
        last_ms = np.zeros_like(ids)
        np.add.at(count, inverse, np.concatenate([self.count, other.count]))
        np.maximum.at(last_ms, inverse, np.concatenate([self.last_ms, other.last_ms]))
        return IdCounts(ids, count, last_ms)


def read_id_counts(tensor: Tensor) -> IdCounts:
    return IdCounts(*tensor.numpy().astype(np.int64).reshape(-1, 3).T.copy())


NO_IDS: Final = read_id_counts(torch.empty(0, 3, dtype=torch.int64))


def update_embedding_rows(
    checkpoint: Checkpoint, network: Network, new: Examples, config: TrainingConfig
) -> Checkpoint:
    """The checkpoint with the ids of `new` counted, rows given to frequent ids and taken from unused ones.

    `network`: that of the checkpoint. Its predictions change only for ids that lose their row; the version stays.
    """
    if not len(new):
        return checkpoint
    known = dict(checkpoint.metadata.statistics.known)
    id_counts = dict(checkpoint.id_counts)
    source_rows = dict[str, Integers]()
    now_ms = int(new.ts_ms.max())
    for table, new_counts in count_ids(new, network).items():
        previous = read_id_counts(id_counts[table]) if table in id_counts else NO_IDS
        merged = previous.merge(find_uncounted(known[table], previous, now_ms)).merge(new_counts)
        freed, added, remembered = select_rows(merged, known[table], checkpoint.metadata.shape.rows, config)
        id_counts[table] = remembered.to_tensor()
        if len(freed) or len(added):
            known[table], source_rows[table] = update_known_ids(known[table], freed, added)
    return replace(remap_checkpoint(checkpoint, network, known, source_rows), id_counts=id_counts)


def find_uncounted(known: KnownIds, counts: IdCounts, now_ms: int) -> IdCounts:
    """The ids that have a row since before ids were counted, as if last seen now."""
    ids = known.array[~np.isin(known.array, counts.ids)]
    return IdCounts(ids, np.zeros_like(ids), np.full_like(ids, now_ms))


def select_rows(
    id_counts: IdCounts, known: KnownIds, rows_max: int, config: TrainingConfig
) -> tuple[Integers, Integers, IdCounts]:
    """The ids that lose their row, the ids that get one (most frequent first), and the counts to keep."""
    has_row = np.isin(id_counts.ids, known.array)
    is_unused = id_counts.last_ms < id_counts.last_ms.max(initial=0) - config.unused_days * DAY_MS
    freed = id_counts.ids[has_row & is_unused]
    waiting = np.flatnonzero(~has_row & ~is_unused)
    frequent = waiting[id_counts.count[waiting] >= config.row_after]
    room = max(rows_max - known.rows + len(freed), 0)
    added = id_counts.ids[frequent[np.argsort(-id_counts.count[frequent], kind="stable")][:room]]
    latest = waiting[np.argsort(-id_counts.last_ms[waiting], kind="stable")][:rows_max]
    is_remembered = has_row & ~is_unused
    is_remembered[latest] = True
    return freed, added, id_counts.take(is_remembered | np.isin(id_counts.ids, added))


def count_ids(examples: Examples, network: Network) -> dict[str, IdCounts]:
    """The counts of the ids of each embedding table in these examples, each id once per example."""
    counts_by_table = dict[str, IdCounts]()
    for group in dict.fromkeys(group for _, group in network.trunks):
        for span in network.features.spans(group):
            ids = np.sort(examples.blocks[group].ids[:, span.start : span.start + span.width], 1)
            ids[:, 1:][ids[:, 1:] == ids[:, :-1]] = 0  # repeated within the example
            row, column = np.nonzero(ids)
            cells = ids[row, column]
            distinct, inverse = np.unique(cells, return_inverse=True)
            last_ms = np.zeros_like(distinct)
            np.maximum.at(last_ms, inverse, examples.ts_ms[row])
            count = np.bincount(inverse, minlength=len(distinct)).astype(np.int64)
            table = table_name(span.feature)
            counts_by_table[table] = counts_by_table.get(table, NO_IDS).merge(IdCounts(distinct, count, last_ms))
    return counts_by_table


def remap_checkpoint(
    checkpoint: Checkpoint, network: Network, known: Mapping[str, KnownIds], source_rows: Mapping[str, Integers]
) -> Checkpoint:
    """The checkpoint with other vocabularies; `source_rows`: by changed table, the former row of each new row."""
    if not source_rows:
        return checkpoint
    statistics = msgspec.structs.replace(checkpoint.metadata.statistics, known=dict(known))
    rows_by_parameter = {
        name: torch.from_numpy(rows) for table, rows in source_rows.items() for name in network.table_parameters(table)
    }
    weights = {
        name: value[rows_by_parameter[name]] if name in rows_by_parameter else value
        for name, value in checkpoint.weights.items()
    }
    return replace(
        checkpoint,
        metadata=msgspec.structs.replace(checkpoint.metadata, statistics=statistics),
        weights=weights,
        optimizer=remap_optimizer(checkpoint.optimizer, network, rows_by_parameter),
    )


def remap_optimizer(
    optimizer: Mapping[str, Any], network: Network, rows_by_parameter: Mapping[str, Tensor]
) -> dict[str, Any]:
    """The optimizer's state, the moments of each table row copied from its former row."""
    state = dict(optimizer.get("state", {}))
    for number, (name, _) in enumerate(network.named_parameters()):
        if name in rows_by_parameter and number in state:
            rows = rows_by_parameter[name]
            state[number] = {key: value[rows] if key in ADAM_MOMENTS else value for key, value in state[number].items()}
    return {**optimizer, "state": state} if optimizer else {}
