"""The lists that were served, put into the order of another bundle: what it would have shown in their place.

Of a list only the order is new: candidates and the draw of fresh items stay as they were, so the draw's propensities
cancel out, and fresh items keep the last places, as the worker puts them; pinned items keep theirs. What the bundle
would show is known; what it would earn is known for the items that were shown. Two assumptions are offered:

- without `examination` a reward may depend on the place in any way: only items that keep their place are known
- `examination`: P(reward) is that of the item times the probability that its place is looked at (the position-based
  click model, Craswell et al. 2008), so a shown item is known at every place, with the ratio of both places as weight
  (Li, Abbasi-Yadkori, Kveton et al. 2018)
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Protocol

import numpy as np

from contract.arrays import Array, Floats, Integers
from contract.errors import BadData
from contract.features.declaration import Block
from contract.graphs import RECOMMEND
from training.offpolicy.logged_actions import LoggedActions, TargetChoices, number_units
from training.offpolicy.served_lists import ShownList

LISTS_PER_RUN: Final = 256
Scores = Mapping[str, Array]


class PairScorer(Protocol):
    """Scores pairs of users and items, see `training.scoring.bundle_scorer`."""

    def score_pairs(self, blocks: Mapping[str, Block], items: Block, user: Integers) -> Scores:
        """The scores (P,) of items (P rows), each for the row `user` (P,) of the blocks, by task."""


def score_lists(lists: Sequence[ShownList], scorer: PairScorer) -> list[Scores]:
    """The scores of all items of each list; raises `BadData` for rows that cannot be read."""
    scores = list[Scores]()
    for begin in range(0, len(lists), LISTS_PER_RUN):
        rows = [shown.row for shown in lists[begin : begin + LISTS_PER_RUN]]
        counts = [len(row.items) for row in rows]
        try:
            unpacked = [{group: block.unpack() for group, block in row.groups.items()} for row in rows]
            blocks = {
                group: concatenate_rows([groups[group] for groups in unpacked]) for group in RECOMMEND.event_groups
            }
            items = concatenate_rows([groups["item"] for groups in unpacked])
        except (KeyError, ValueError) as error:
            raise BadData(f"Rows of lists should have the groups of their features. Found: {error!r}") from error
        answers = scorer.score_pairs(blocks, items, np.repeat(np.arange(len(rows)), counts))
        ends = np.cumsum(counts)[:-1]
        parts = {task: np.split(np.asarray(values, np.float64), ends) for task, values in answers.items()}
        scores += [{task: split[number] for task, split in parts.items()} for number in range(len(rows))]
    return scores


def concatenate_rows(blocks: Sequence[Block]) -> Block:
    return Block(np.concatenate([block.numbers for block in blocks]), np.concatenate([block.ids for block in blocks]))


def value_items(scores: Scores, purchase_value: float) -> Floats:
    """The value by which the worker orders a list; what is not finite comes last."""
    value = scores["click"] + purchase_value * scores.get("purchase", np.zeros(1))
    return np.nan_to_num(value, nan=-1.0, posinf=-1.0, neginf=-1.0)


def rank_items(shown: ShownList, values: Floats) -> Integers:
    """The places of the list's items, best first; items that were drawn, with a propensity below 1, come last.

    An item that a rule pins has its place, whatever its value.
    """
    drawn = np.array([propensity < 1 for propensity in shown.row.propensities] or [False] * len(values))
    order = np.lexsort((np.arange(len(values)), -values, drawn)).astype(np.int64)
    pinned = np.array(shown.row.pinned, np.int64)
    if len(pinned):
        free = np.setdiff1d(np.arange(len(values)), pinned)
        ordered = order[~np.isin(order, pinned)]
        order[pinned], order[free] = pinned, ordered
    return order


class ListRows(NamedTuple):
    """One list as logged actions: a row (D,) for each of its D shown places, and what the new order has there."""

    propensity: Floats
    target: Floats
    exposure: Floats
    target_exposure: Floats
    columns: Floats
    choice_propensity: Floats
    choice_columns: Floats


def reorder_lists(
    lists: Sequence[ShownList],
    values: Sequence[Floats],
    former_values: Sequence[Floats],
    rewards: Mapping[str, float],
    examination: Floats | None,
) -> LoggedActions:
    """The shown items of each list as logged actions, with the order by `values` as the target policy.

    `former_values`: by which the list was ordered when it was served. `rewards`: the value of each task's label. Raises
    `BadData` for a list of which more places were shown than `examination` has.
    """
    rows = [
        reorder_list(shown, rank_items(shown, new), np.column_stack([new, old]), examination)
        for shown, new, old in zip(lists, values, former_values, strict=True)
    ]
    columns = ListRows(*(np.concatenate(parts) for parts in zip(*rows, strict=True)))
    depths = [len(shown.labels) for shown in lists]
    return LoggedActions(
        reward=np.concatenate([shown.rewards(rewards) for shown in lists]).astype(np.float64),
        propensity=columns.propensity,
        target=columns.target,
        unit=number_units(np.repeat([shown.row.user_id for shown in lists], depths)),
        exposure=columns.exposure,
        target_exposure=columns.target_exposure,
        columns=columns.columns,
        choices=TargetChoices(
            row=np.arange(sum(depths)),
            probability=np.ones(sum(depths)),
            propensity=columns.choice_propensity,
            columns=columns.choice_columns,
            exposure=columns.exposure,
        ),
    )


def reorder_list(shown: ShownList, order: Integers, values: Floats, examination: Floats | None) -> ListRows:
    """`order` (n,): the places of the list's items in the new order; `values` (n, 2): what the reward model knows."""
    depth = len(shown.labels)
    if examination is not None and len(examination) < depth:
        raise BadData(f"The examination should have {depth} places, as many as were shown. Found {len(examination)}.")
    place = np.arange(depth)
    new_place, chosen = np.argsort(order)[:depth], order[:depth]  # of the shown items; the items at the shown places
    exposure = np.ones(depth) if examination is None else examination[:depth]
    stays = new_place < depth if examination is not None else new_place == place
    is_known = chosen < depth if examination is not None else chosen == place
    logged = 1.0 if len(shown.row.propensities) == len(order) else np.nan
    # a place says nothing more where its examination is given
    place_column = np.zeros(depth) if examination is not None else place.astype(np.float64)
    return ListRows(
        propensity=np.full(depth, logged),
        target=stays.astype(np.float64),
        exposure=exposure,
        target_exposure=exposure[np.minimum(new_place, depth - 1)],
        columns=np.column_stack([values[:depth], place_column]),
        choice_propensity=np.where(is_known, logged, 0.0),
        choice_columns=np.column_stack([values[chosen], place_column]),
    )
