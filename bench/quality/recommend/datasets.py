"""Two real shops as cases: what users did before, and what they took next, split by time or as the data comes split.

Online Retail: the last tenth of the days is the test; a case is a user with invoices before it, and the new items of
their next invoice. Diginetica: its own sessions and prefixes; a case is a prefix, and the item that was clicked next.
"""

import gzip
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from contract.errors import BadData
from demo.online_retail.invoices import read_invoices
from export.interactions import SCHEMA

TEST_SHARE: Final = 0.1
LENGTH: Final = 20  # of a list
DAY_MS: Final = 86_400_000
STEP_MS: Final = 1_000  # between the clicks of a session, which have no times
SESSION_MS: Final = 3_600_000
BEGIN_MS: Final = 1_700_000_000_000


class Case(NamedTuple):
    """`history`: what the user took and when, oldest first; `wanted`: what came next; `left_out`: is no answer."""

    history: Sequence[tuple[str, int]]
    targets: frozenset[str]
    excluded: frozenset[str]


class RecommendDataset(NamedTuple):
    """A shop. `taken`: (user, item, ts_ms) of the training part. `rank`: NDCG, or MRR where one item is wanted."""

    name: str
    rank_metric: Literal["ndcg", "mrr"]
    interactions: Sequence[tuple[str, str, int]]
    cases: Sequence[Case]

    @property
    def items(self) -> list[str]:
        return sorted({item for _, item, _ in self.interactions})

    def to_table(self) -> Any:
        """The training part as interactions."""
        columns = zip(*self.interactions, strict=True)
        return pa.table(dict(zip(SCHEMA.names, map(list, columns), strict=True)), SCHEMA)


def read_online_retail(folder: Path) -> RecommendDataset:
    """Raises `BadData` where the file is not there."""
    invoices = [i for i in read_invoices(folder / "online_retail") if i.is_clean and not i.is_cancellation]
    invoices.sort(key=lambda invoice: invoice.ts_ms)
    days = sorted({invoice.ts_ms // DAY_MS for invoice in invoices})
    begin_ms = days[int(len(days) * (1 - TEST_SHARE))] * DAY_MS
    interactions, history, cases = list[tuple[str, str, int]](), dict[str, list[tuple[str, int]]](), dict[str, Case]()
    for invoice in invoices:
        user, items = invoice.customer, list(dict.fromkeys(to_item_id(row.stock_code) for row in invoice.lines))
        if invoice.ts_ms < begin_ms:
            history.setdefault(user, []).extend((item, invoice.ts_ms) for item in items)
            interactions += [(user, item, invoice.ts_ms) for item in items]
        elif user in history and user not in cases:
            owned = frozenset(item for item, _ in history[user])
            if new_items := frozenset(items) - owned:
                cases[user] = Case(history[user], new_items, owned)
    return RecommendDataset("online_retail", "ndcg", interactions, list(cases.values()))


def read_diginetica(folder: Path) -> RecommendDataset:
    """Raises `BadData` where the files are not there."""
    names = ("train_sessions", "test_prefix_target")
    train, test = (read_lines(folder / "diginetica" / f"{name}.txt.gz") for name in names)
    interactions = [
        (f"s{number}", f"i{item}", BEGIN_MS + number * SESSION_MS + position * STEP_MS)
        for number, line in enumerate(train)
        for position, item in enumerate(line.split())
    ]
    cases = []
    for line in test:
        prefix, _, target = line.partition("\t")
        history = [(f"i{item}", BEGIN_MS + position * STEP_MS) for position, item in enumerate(prefix.split())]
        cases.append(Case(history, frozenset({f"i{target.strip()}"}), frozenset()))
    return RecommendDataset("diginetica", "mrr", interactions, cases)


def read_lines(path: Path) -> list[str]:
    try:
        with gzip.open(path, "rt") as lines:
            return list(lines)
    except OSError as error:
        raise BadData(f"Diginetica should be at {path}. Found: {error}") from error


def to_item_id(stock_code: str) -> str:
    """A stock code as an id: those of the file have spaces, but nothing that ids may not have."""
    return stock_code.strip().upper() or "none"


class ListQuality(NamedTuple):
    """`coverage`: the share of all items that are on any list."""

    recall_20: float
    rank_20: float
    coverage: float


def evaluate_lists(lists: Iterable[Sequence[str]], data: RecommendDataset) -> ListQuality:
    """How good lists are, one for each case, each cut to `LENGTH` without what is left out for it."""
    recalls, ranks, shown = list[float](), list[float](), set[str]()
    for ranked, case in zip(lists, data.cases, strict=True):
        top_items = [item for item in ranked if item not in case.excluded][:LENGTH]
        shown.update(top_items)
        hit_ranks = np.flatnonzero([item in case.targets for item in top_items])
        recalls.append(len(hit_ranks) / len(case.targets))
        if data.rank_metric == "mrr":
            ranks.append(float(1 / (hit_ranks[0] + 1)) if len(hit_ranks) else 0.0)
        else:
            ideal = (1 / np.log2(np.arange(min(len(case.targets), LENGTH)) + 2)).sum()
            ranks.append(float((1 / np.log2(hit_ranks + 2)).sum() / ideal))
    return ListQuality(float(np.mean(recalls)), float(np.mean(ranks)), len(shown) / len(data.items))
