"""Three real shops as test cases: a user's history and the items that followed, split by time or as published.

Online Retail: the last tenth of the days is the test period; a case is a user with earlier invoices, and the new items
of their first invoice in it. Diginetica: its own sessions and prefixes; a case is a prefix and the next clicked item.
Amazon Beauty: a user's last item is the target of all that came before, and all items but those are ranked; only what
came before a user's last two items is for training.
"""

import gzip
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from contract.errors import BadData
from contract.units import DAY_MS, HOUR_MS
from demo.online_retail.invoices import read_invoices
from export.interactions import SCHEMA

TEST_SHARE: Final = 0.1
LENGTH: Final = 20  # of a list
BEAUTY_LENGTH: Final = 10
STEP_MS: Final = 1_000  # between the clicks of a session, which have no timestamps
SESSION_MS: Final = HOUR_MS
BEGIN_MS: Final = 1_700_000_000_000


class Case(NamedTuple):
    """`history`: items and times, oldest first; `targets`: items that followed; `excluded`: items that do not count."""

    history: Sequence[tuple[str, int]]
    targets: frozenset[str]
    excluded: frozenset[str]


class RecommendDataset(NamedTuple):
    """A dataset. `interactions`: (user, item, ts_ms) of the training part. `rank_metric`: MRR for a single target.

    `length`: of the lists that are judged. `action`: of all interactions. `has_times`: else the times only order those
    of each user. `catalogue`: items besides those of the training part.
    """

    name: str
    rank_metric: Literal["ndcg", "mrr"]
    interactions: Sequence[tuple[str, str, int]]
    cases: Sequence[Case]
    length: int = LENGTH
    action: Literal["click", "order"] = "click"
    has_times: bool = True
    catalogue: frozenset[str] = frozenset()

    @property
    def items(self) -> list[str]:
        return sorted({item for _, item, _ in self.interactions} | self.catalogue)

    @property
    def new_items_only(self) -> bool:
        """Whether no case has an item of its history as an answer."""
        return all(case.excluded for case in self.cases)

    @property
    def measures(self) -> tuple[str, str, str]:
        """What the figures of `ListQuality` are called."""
        if self.length == BEAUTY_LENGTH:
            return f"hr_{self.length}", f"{self.rank_metric}_{self.length}", "coverage"
        return f"recall_{self.length}", f"rank_{self.length}", "coverage"

    def to_table(self) -> Any:
        """The training part as interactions."""
        columns = zip(*self.interactions, strict=True)
        return pa.table(dict(zip(SCHEMA.names, map(list, columns), strict=True)), SCHEMA)


def read_online_retail(folder: Path) -> RecommendDataset:
    """Raises `BadData` if the file is missing."""
    invoices = [i for i in read_invoices(folder / "online_retail") if i.is_clean and not i.is_cancellation]
    invoices.sort(key=lambda invoice: invoice.ts_ms)
    days = sorted({invoice.ts_ms // DAY_MS for invoice in invoices})
    begin_ms = days[int(len(days) * (1 - TEST_SHARE))] * DAY_MS
    interactions = list[tuple[str, str, int]]()
    history = dict[str, list[tuple[str, int]]]()
    cases = dict[str, Case]()
    for invoice in invoices:
        user, items = invoice.customer, list(dict.fromkeys(to_item_id(row.stock_code) for row in invoice.lines))
        if invoice.ts_ms < begin_ms:
            history.setdefault(user, []).extend((item, invoice.ts_ms) for item in items)
            interactions += [(user, item, invoice.ts_ms) for item in items]
        elif user in history and user not in cases:
            owned = frozenset(item for item, _ in history[user])
            if new_items := frozenset(items) - owned:
                cases[user] = Case(history[user], new_items, owned)
    return RecommendDataset("online_retail", "ndcg", interactions, list(cases.values()), action="order")


def read_diginetica(folder: Path) -> RecommendDataset:
    """Raises `BadData` if the files are missing."""
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


def read_amazon_beauty(folder: Path) -> RecommendDataset:
    """Raises `BadData` if the file is missing. It has an order of each user's items, but no times."""
    interactions = list[tuple[str, str, int]]()
    cases, catalogue = list[Case](), set[str]()
    for line in read_lines(folder / "amazon_beauty" / "Beauty.txt.gz"):
        user, *items = line.split()
        *history, target = ((f"i{item}", BEGIN_MS + place * DAY_MS) for place, item in enumerate(items))
        interactions += [(f"u{user}", item, ts_ms) for item, ts_ms in history[:-1]]
        cases.append(Case(history, frozenset({target[0]}), frozenset(item for item, _ in history)))
        catalogue.update(item for item, _ in (*history, target))
    return RecommendDataset(
        "amazon_beauty",
        "ndcg",
        interactions,
        cases,
        length=BEAUTY_LENGTH,
        has_times=False,
        catalogue=frozenset(catalogue),
    )


def read_lines(path: Path) -> list[str]:
    try:
        with gzip.open(path, "rt") as lines:
            return list(lines)
    except OSError as error:
        raise BadData(f"A data set should be at {path}. Found: {error}") from error


def to_item_id(stock_code: str) -> str:
    """A stock code as an item id; codes contain spaces, but no characters that ids exclude."""
    return stock_code.strip().upper() or "none"


class ListQuality(NamedTuple):
    """Recall, NDCG or MRR of the first items of lists, and the share of all items that are on any list.

    For a single target recall is the hit rate.
    """

    recall: float
    rank: float
    coverage: float


def evaluate_lists(lists: Iterable[Sequence[str]], data: RecommendDataset) -> ListQuality:
    """The quality of ranked lists, one per case, each cut to its length after removing the excluded items."""
    recalls = list[float]()
    ranks = list[float]()
    shown = set[str]()
    for ranked, case in zip(lists, data.cases, strict=True):
        top_items = [item for item in ranked if item not in case.excluded][: data.length]
        shown.update(top_items)
        hit_ranks = np.flatnonzero([item in case.targets for item in top_items])
        recalls.append(len(hit_ranks) / len(case.targets))
        if data.rank_metric == "mrr":
            ranks.append(float(1 / (hit_ranks[0] + 1)) if len(hit_ranks) else 0.0)
        else:
            ideal = (1 / np.log2(np.arange(min(len(case.targets), data.length)) + 2)).sum()
            ranks.append(float((1 / np.log2(hit_ranks + 2)).sum() / ideal))
    return ListQuality(float(np.mean(recalls)), float(np.mean(ranks)), len(shown) / len(data.items))
