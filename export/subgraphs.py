"""The graphs of a bundle as subgraphs of one network: each computes only what its tasks need.

onnxruntime does not prune a graph to the requested outputs, so each one is exported separately. Names of inputs and
outputs are those of `contract.bundle`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from contract.graphs import GRAPHS
from contract.tasks import Task
from model.network import Inputs, Network, TaskView


@dataclass(frozen=True, slots=True)
class Subgraph:
    """One graph: a module, its inputs in the order of its arguments, and its outputs."""

    name: str
    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The outputs by name, computed by torch."""
        with torch.no_grad():
            outputs = self.module(*(inputs[name] for name in self.inputs))
        return dict(zip(self.outputs, outputs, strict=True))


def build_subgraphs(network: Network) -> list[Subgraph]:
    """A subgraph for each graph that has a task of the network, and the item part where it is used."""
    subgraphs = [
        build_subgraph(network, graph) for graph in GRAPHS if any(task.graph == graph for task in network.tasks)
    ]
    if any("item_part" in subgraph.inputs for subgraph in subgraphs):
        subgraphs.insert(0, Subgraph("items", ItemsGraph(network), block_input_names(["item"]), ("item_part",)))
    return subgraphs


def build_subgraph(network: Network, graph: str) -> Subgraph:
    views = [view for view in network.views if view.graph == graph]
    groups = [group for group in GRAPHS[graph].groups if any(group in view.groups for view in views)]
    outputs = tuple(task.name for task in list_tasks(views))
    if not GRAPHS[graph].is_paired:
        return Subgraph(graph, RowsGraph(network, views, groups), block_input_names(groups), outputs)
    sides = [group for group in groups if group != "item"]
    inputs = (*block_input_names(sides), "item_part", GRAPHS[graph].pair_input)
    return Subgraph(graph, PairsGraph(network, views, sides), inputs, outputs)


def block_input_names(groups: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{group}.{part}" for group in groups for part in ("numbers", "ids"))


def list_tasks(views: Sequence[TaskView]) -> list[Task]:
    return [task for view in views for task in view.tasks]


def to_inputs(groups: Sequence[str], arrays: Sequence[Tensor]) -> Inputs:
    return {group: (arrays[2 * number], arrays[2 * number + 1]) for number, group in enumerate(groups)}


class ItemsGraph(nn.Module):
    """Features of M items -> their parts of the first layer (M, H)."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, numbers: Tensor, ids: Tensor) -> tuple[Tensor]:
        return (self.network.item_parts(numbers, ids),)


class RowsGraph(nn.Module):
    """Blocks of N rows -> the predictions of each row."""

    def __init__(self, network: Network, views: Sequence[TaskView], groups: Sequence[str]) -> None:
        super().__init__()
        self.network, self.views, self.groups = network, views, groups

    def forward(self, *arrays: Tensor) -> tuple[Tensor, ...]:
        inputs, predictions = to_inputs(self.groups, arrays), dict[str, Tensor]()
        for view in self.views:
            logits = self.network.logits(view, self.network.group_parts(view, inputs))
            predictions |= self.network.predict_view(view, logits)
        return tuple(predictions.values())


class PairsGraph(nn.Module):
    """Blocks of U rows, the parts of P items and the row of each -> the predictions of each pair."""

    def __init__(self, network: Network, views: Sequence[TaskView], sides: Sequence[str]) -> None:
        super().__init__()
        self.network, self.views, self.sides = network, views, sides

    def forward(self, *arrays: Tensor) -> tuple[Tensor, ...]:
        *blocks, item_part, row = arrays
        inputs, predictions = to_inputs(self.sides, blocks), dict[str, Tensor]()
        for view in self.views:
            parts = {
                group: self.network.group_part(
                    group, *inputs[group], hide=view.hide, owner=view.owner_of(group)
                ).index_select(0, row)
                for group in view.groups
                if group != "item"
            }
            item = [self.network.item_part(view, item_part)] if "item" in view.groups else []
            predictions |= self.network.predict_view(view, self.network.logits(view, [*parts.values(), *item]))
        return tuple(predictions.values())
