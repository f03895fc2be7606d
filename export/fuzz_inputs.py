"""Random inputs to run graphs with: usual values, and values that must not make a graph fail.

They are drawn and not taken from examples, so that a bundle's golden inputs carry no personal data.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from export.subgraphs import Subgraph
from model.feature_statistics import NumberStatistics
from model.network import Network


def draw_inputs(subgraph: Subgraph, network: Network, *, rows: int, seed: int) -> dict[str, Tensor]:
    """Inputs of a subgraph for `rows` rows or pairs (of half as many users); the first row is all unknown."""
    rng, inputs = np.random.default_rng(seed), dict[str, Tensor]()
    sides = max(1, rows // 2) if "item_part" in subgraph.inputs else rows
    for name in subgraph.inputs:
        group, _, part = name.partition(".")
        if part == "numbers":
            inputs[name] = torch.from_numpy(draw_numbers(network.statistics.numbers[group], sides, rng))
        elif part == "ids":
            inputs[name] = torch.from_numpy(draw_ids((sides, network.features.widths(group)[1]), rng))
        elif name == "item_part":
            inputs[name] = draw_item_part(network, rows, rng)
        else:
            inputs[name] = torch.from_numpy(rng.integers(0, sides, rows))
    return inputs


def draw_numbers(
    statistics: tuple[NumberStatistics, ...], rows: int, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Numbers (rows, n) around the bounds of the training part, some unknown, infinite or far outside."""
    shape = rows, len(statistics)
    low, high = (np.array([getattr(column, name) for column in statistics]) for name in ("low", "high"))
    numbers = (low + (high - low) * rng.uniform(-0.2, 1.2, shape)).astype(np.float32)
    hostile = rng.choice(np.array([np.nan, np.inf, -np.inf, 3e38, -3e38, 0.0], np.float32), shape)
    numbers = np.where(rng.random(shape) < 0.2, hostile, numbers)
    numbers[:1] = np.nan
    return numbers


def draw_ids(shape: tuple[int, int], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Out-of-vocabulary ids, some absent, negative or at the bounds of their type."""
    bounds = np.iinfo(np.int64)
    ids = rng.integers(1, bounds.max, shape)
    hostile = rng.choice(np.array([0, 0, 0, 1, -1, bounds.min, bounds.max]), shape)
    ids = np.where(rng.random(shape) < 0.3, hostile, ids)
    ids[:1] = 0
    return ids


def draw_item_part(network: Network, rows: int, rng: np.random.Generator) -> Tensor:
    numbers = draw_numbers(network.statistics.numbers["item"], rows, rng)
    ids = draw_ids((rows, network.features.widths("item")[1]), rng)
    with torch.no_grad():
        return network.item_parts(torch.from_numpy(numbers), torch.from_numpy(ids))
