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

from model.checkpoint import Checkpoint
from model.network import Network
from model.statistics import table_of
from model.vocabulary import Known, changed
from training.examples import Examples
from training.plan import Plan

DAY_MS: Final = 86_400_000
Integers = npt.NDArray[np.int64]
MOMENTS: Final = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")  # what AdamW remembers of each weight


@dataclass(frozen=True, slots=True)
class Met:
    """Distinct ids in rising order, in how many examples each was met and when last; all (n,)."""

    ids: Integers
    count: Integers
    last_ms: Integers

    def take(self, rows: npt.NDArray[Any]) -> "Met":
        return Met(self.ids[rows], self.count[rows], self.last_ms[rows])

    def tensor(self) -> Tensor:
        return torch.from_numpy(np.stack([self.ids, self.count, self.last_ms], 1))

    def and_(self, other: "Met") -> "Met":
        """Both, counts added up."""
        ids, at = np.unique(np.concatenate([self.ids, other.ids]), return_inverse=True)
        count, last_ms = np.zeros_like(ids), np.zeros_like(ids)
        np.add.at(count, at, np.concatenate([self.count, other.count]))
        np.maximum.at(last_ms, at, np.concatenate([self.last_ms, other.last_ms]))
        return Met(ids, count, last_ms)


def as_met(tensor: Tensor) -> Met:
    return Met(*tensor.numpy().astype(np.int64).reshape(-1, 3).T.copy())


NOBODY: Final = as_met(torch.empty(0, 3, dtype=torch.int64))


def rehoused(checkpoint: Checkpoint, network: Network, new: Examples, plan: Plan) -> Checkpoint:
    """The checkpoint with ids counted, rows given to those met often and taken from those not met for long.

    All else, its version too, stays; `network` is its own. What it answers changes for ids that lost their row alone.
    """
    if not len(new):
        return checkpoint
    counts = met_in(new, network)
    known, met, rows = dict(checkpoint.about.statistics.known), dict(checkpoint.met), dict[str, Integers]()
    now_ms = int(new.ts_ms.max())
    for table, found in counts.items():
        ids = known[table].array
        fresh = Met(ids, np.zeros_like(ids), np.full_like(ids, now_ms))  # of ids from before ids were counted
        before = as_met(met[table]) if table in met else NOBODY
        missing = fresh.take(~np.isin(ids, before.ids))
        everyone = before.and_(missing).and_(found)
        freed, added, kept = decided(everyone, known[table], checkpoint.about.shape.rows, plan)
        met[table] = kept.tensor()
        if len(freed) or len(added):
            known[table], rows[table] = changed(known[table], freed, added)
    return replace(moved(checkpoint, network, known, rows), met=met)


def decided(met: Met, known: Known, rows_max: int, plan: Plan) -> tuple[Integers, Integers, Met]:
    """Ids that lose their row, ids that get one, most often met first, and what is remembered of all others."""
    housed = np.isin(met.ids, known.array)
    unused = met.last_ms < met.last_ms.max(initial=0) - plan.unused_days * DAY_MS
    freed = met.ids[housed & unused]
    waiting = np.flatnonzero(~housed & ~unused)
    often = waiting[met.count[waiting] >= plan.row_after]
    room = max(rows_max - known.rows + len(freed), 0)
    added = met.ids[often[np.argsort(-met.count[often], kind="stable")][:room]]
    latest = waiting[np.argsort(-met.last_ms[waiting], kind="stable")][:rows_max]
    stay = housed & ~unused
    stay[latest] = True
    return freed, added, met.take(stay | np.isin(met.ids, added))


def met_in(examples: Examples, network: Network) -> dict[str, Met]:
    """How often and when the ids of each embedding table were met in these examples, once in each row."""
    found = dict[str, Met]()
    for group in dict.fromkeys(group for _, group in network.trunks):
        for span in network.features.spans(group):
            ids = np.sort(examples.blocks[group].ids[:, span.start : span.start + span.width], 1)
            ids[:, 1:][ids[:, 1:] == ids[:, :-1]] = 0
            row, column = np.nonzero(ids)
            cells = ids[row, column]
            distinct, at = np.unique(cells, return_inverse=True)
            last_ms = np.zeros_like(distinct)
            np.maximum.at(last_ms, at, examples.ts_ms[row])
            table, met = (
                table_of(span.feature),
                Met(distinct, np.bincount(at, minlength=len(distinct)).astype(np.int64), last_ms),
            )
            found[table] = found[table].and_(met) if table in found else met
    return found


def moved(
    checkpoint: Checkpoint, network: Network, known: Mapping[str, Known], rows: Mapping[str, Integers]
) -> Checkpoint:
    """The checkpoint with other vocabularies; `rows`: of each changed table, the former row of each row."""
    if not rows:
        return checkpoint
    statistics = msgspec.structs.replace(checkpoint.about.statistics, known=dict(known))
    at = {name: torch.from_numpy(of) for table, of in rows.items() for name in network.tables_of(table)}
    weights = {name: value[at[name]] if name in at else value for name, value in checkpoint.weights.items()}
    return replace(
        checkpoint,
        about=msgspec.structs.replace(checkpoint.about, statistics=statistics),
        weights=weights,
        optimizer=with_rows(checkpoint.optimizer, network, at),
    )


def with_rows(optimizer: Mapping[str, Any], network: Network, at: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the optimizer remembers, each row of a table being that of the row that it was or begins as."""
    state = dict(optimizer.get("state", {}))
    for number, (name, _) in enumerate(network.named_parameters()):
        if name in at and number in state:
            state[number] = {key: value[at[name]] if key in MOMENTS else value for key, value in state[number].items()}
    return {**optimizer, "state": state} if optimizer else {}
