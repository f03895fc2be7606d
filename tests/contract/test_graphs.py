"""The table of graphs agrees with what tasks may name and with the kinds of scored rows."""

from collections import Counter
from typing import get_args, get_type_hints

from contract.features.declaration import GROUPS
from contract.graphs import CLASSIFY, GRAPHS, REVIEW, SEARCH
from contract.messages import ScoredKind
from contract.tasks import Task


def test_a_task_may_name_every_graph_except_the_item_side() -> None:
    assert set(get_args(get_type_hints(Task)["graph"])) == GRAPHS.keys() - {"items"}


def test_each_kind_of_scored_row_is_logged_by_one_graph() -> None:
    counts = Counter(kind for graph in GRAPHS.values() for kind in graph.scored_kinds)

    assert counts == Counter(get_args(ScoredKind))


def test_graphs_read_declared_feature_groups() -> None:
    assert {group for graph in GRAPHS.values() for group in graph.groups} <= set(GROUPS)


def test_the_item_block_is_not_among_the_groups_encoded_from_an_event() -> None:
    assert (SEARCH.event_groups, REVIEW.event_groups, CLASSIFY.event_groups) == (
        ("user", "query"),
        ("user", "review"),
        (),
    )


def test_only_graphs_that_score_pairs_name_the_input_of_a_pair() -> None:
    assert {graph.name: graph.pair_input for graph in GRAPHS.values() if graph.is_paired} == {
        "recommend": "user",
        "search": "search",
    }
