"""The graphs of a bundle: the one table of which feature groups each reads, what it answers, and which rows log it.

`contract.bundle` documents the inputs and outputs of the files.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from contract.messages import ScoredKind
from contract.tasks import Task


@dataclass(frozen=True, kw_only=True)
class Graph:
    """One graph of the network.

    `groups`: the feature groups that its tasks may read. `outputs`: what the worker requires of it; a bundle may have
    more. `pair_input`: the input with each pair's row of user or query, for graphs that score pairs with items.
    `is_rare_positive`: its tasks look for a few bad events among many. `scored_kinds`: the scored rows that log it.
    """

    name: str
    groups: tuple[str, ...]
    outputs: tuple[str, ...] = ()
    pair_input: str = ""
    is_rare_positive: bool = False
    scored_kinds: tuple[ScoredKind, ...] = ()

    @property
    def is_paired(self) -> bool:
        """Whether it scores pairs of a user or query with an item, from the item's precomputed part."""
        return bool(self.pair_input)

    @cached_property
    def event_groups(self) -> tuple[str, ...]:
        """The groups encoded from an event and the profiles; the item's block comes from the catalogue."""
        return tuple(group for group in self.groups if group != "item")


ITEMS: Final = Graph(name="items", groups=("item",), outputs=("item_part",))
RECOMMEND: Final = Graph(
    name="recommend",
    groups=("user", "context", "item"),
    outputs=("click",),
    pair_input="user",
    scored_kinds=("recommendation", "click"),
)
DECIDE: Final = Graph(
    name="decide",
    groups=("user", "order", "context"),
    outputs=("fraud",),
    is_rare_positive=True,
    scored_kinds=("order",),
)
REVIEW: Final = Graph(
    name="review",
    groups=("user", "review", "item"),
    outputs=("fake_review",),
    is_rare_positive=True,
    scored_kinds=("review",),
)
SEARCH: Final = Graph(
    name="search",
    groups=("user", "query", "item"),
    outputs=("relevance",),
    pair_input="search",
    scored_kinds=("search",),
)
CLASSIFY: Final = Graph(name="classify", groups=("item",), scored_kinds=("product",))

GRAPHS: Final[Mapping[str, Graph]] = {
    graph.name: graph for graph in (ITEMS, RECOMMEND, DECIDE, REVIEW, SEARCH, CLASSIFY)
}


def find_missing_tasks(tasks: Sequence[Task]) -> Iterator[str]:
    """A sentence for each graph of a bundle with these tasks that does not answer what workers require of it."""
    for graph in GRAPHS.values():
        answered = [task.name for task in tasks if task.graph == graph.name]
        missing = [name for name in graph.outputs if name not in answered]
        if answered and missing:
            yield (
                f"A bundle with the graph {graph.name} should have the task {', '.join(missing)}, "
                f"without which workers refuse it. Found {', '.join(answered)}."
            )
