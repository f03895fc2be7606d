"""Builds what a bundle knows of its items from interactions: neighbours of two sources, vectors and counts."""

from typing import Final

import torch

from contract.retrieval.item_table import ItemTable, Neighbours, no_neighbours
from export.ease import ITEMS_MAX
from export.neighbours import WeightedPairs, pair_by_ease, pair_by_sequence, select_closest
from model.sequence.encoder import SequenceEncoder
from training.next_item.encoder_training import ITEMS_FULL
from training.next_item.histories import History
from training.next_item.spectral_start import find_spectral_vectors

NEIGHBOURS_MAX: Final = 100
EASE_RIDGE: Final = 200.0
WIDTH_SMALL: Final = 96  # of vectors, for up to `ITEMS_FULL` items
WIDTH_LARGE: Final = 64


def build_table(history: History, seed: int) -> ItemTable:
    """Neighbours by following, and where there are few items by the linear model of baskets (Steck 2019) as well."""
    interactions, items = history.to_interactions(), len(history.names)
    following = to_neighbours(pair_by_sequence(interactions), items)
    ease = to_neighbours(pair_by_ease(interactions, EASE_RIDGE), items) if items <= ITEMS_MAX else no_neighbours(items)
    return ItemTable(
        neighbours=following,
        other_neighbours=ease,
        vectors=find_spectral_vectors(interactions, WIDTH_SMALL if items <= ITEMS_FULL else WIDTH_LARGE, seed),
        counts=history.count_items().astype("float32"),
        recent_counts=history.count_recent().astype("float32"),
    )


def to_neighbours(pairs: WeightedPairs, items: int) -> Neighbours:
    rows, weights = select_closest(pairs, items, NEIGHBOURS_MAX)
    return Neighbours(rows, weights, pairs.recency_exponent)


def swap_sources(table: ItemTable) -> ItemTable:
    return table._replace(neighbours=table.other_neighbours, other_neighbours=table.neighbours)


@torch.no_grad()
def with_vectors(table: ItemTable, encoder: SequenceEncoder) -> ItemTable:
    """The table with the vectors of a network in evaluation mode."""
    return table._replace(vectors=encoder.item_vectors().numpy())
