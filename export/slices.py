"""The graphs of a bundle as slices of one network: each computes what its tasks need and nothing besides.

onnxruntime does not prune by the outputs that are asked for, so each graph is exported by itself. Names of inputs and
outputs are those of `contract.bundle`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from contract.bundle import GRAPHS
from contract.tasks import Task
from model.declared import GRAPH_GROUPS, PAIRED
from model.network import Inputs, Network, View

PAIR_ROW: Final = {"recommend": "user", "search": "search"}  # the input that says which row a pair belongs to


@dataclass(frozen=True, slots=True)
class Slice:
    """One graph: a module, its inputs in the order of its arguments, and its outputs."""

    name: str
    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The outputs by name, computed by torch."""
        with torch.no_grad():
            found = self.module(*(inputs[name] for name in self.inputs))
        return dict(zip(self.outputs, found, strict=True))


def slices(network: Network) -> list[Slice]:
    """A slice for each graph that one of the network's tasks is answered by, and the items' part where it is used."""
    found = [slice_of(network, graph) for graph in GRAPHS if any(task.graph == graph for task in network.tasks)]
    if any("item_part" in one.inputs for one in found):
        found.insert(0, Slice("items", ItemsGraph(network), block_inputs(["item"]), ("item_part",)))
    return found


def slice_of(network: Network, graph: str) -> Slice:
    views = [view for view in network.views if view.graph == graph]
    groups = [group for group in GRAPH_GROUPS[graph] if any(group in view.groups for view in views)]
    outputs = tuple(task.name for task in tasks_of(views))
    if graph not in PAIRED:
        return Slice(graph, RowsGraph(network, views, groups), block_inputs(groups), outputs)
    sides = [group for group in groups if group != "item"]
    inputs = (*block_inputs(sides), "item_part", PAIR_ROW[graph])
    return Slice(graph, PairsGraph(network, views, sides), inputs, outputs)


def block_inputs(groups: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{group}.{part}" for group in groups for part in ("numbers", "ids"))


def tasks_of(views: Sequence[View]) -> list[Task]:
    return [task for view in views for task in view.tasks]


def as_inputs(groups: Sequence[str], arrays: Sequence[Tensor]) -> Inputs:
    return {group: (arrays[2 * at], arrays[2 * at + 1]) for at, group in enumerate(groups)}


class ItemsGraph(nn.Module):
    """An item's features (M rows) -> its part of the first layer (M, H)."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, numbers: Tensor, ids: Tensor) -> tuple[Tensor]:
        return (self.network.item_parts(numbers, ids),)


class RowsGraph(nn.Module):
    """Blocks of N rows -> the answers of each row."""

    def __init__(self, network: Network, views: Sequence[View], groups: Sequence[str]) -> None:
        super().__init__()
        self.network, self.views, self.groups = network, views, groups

    def forward(self, *arrays: Tensor) -> tuple[Tensor, ...]:
        inputs, found = as_inputs(self.groups, arrays), dict[str, Tensor]()
        for view in self.views:
            logits = self.network.logits(view, self.network.parts(view, inputs))
            found |= self.network.answers(view, logits)
        return tuple(found.values())


class PairsGraph(nn.Module):
    """Blocks of U rows, the parts of P items and the row that each pairs with -> the answers of each pair."""

    def __init__(self, network: Network, views: Sequence[View], sides: Sequence[str]) -> None:
        super().__init__()
        self.network, self.views, self.sides = network, views, sides

    def forward(self, *arrays: Tensor) -> tuple[Tensor, ...]:
        *blocks, item_part, row = arrays
        inputs, found = as_inputs(self.sides, blocks), dict[str, Tensor]()
        for view in self.views:
            parts = {
                group: self.network.part(
                    group, *inputs[group], hide=view.hide, owner=view.owner_of(group)
                ).index_select(0, row)
                for group in view.groups
                if group != "item"
            }
            item = [self.network.item_part(view, item_part)] if "item" in view.groups else []
            found |= self.network.answers(view, self.network.logits(view, [*parts.values(), *item]))
        return tuple(found.values())
