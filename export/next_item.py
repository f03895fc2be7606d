"""Exports the next-item part of a checkpoint: two graphs that read no features of events, and tables of items."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from contract.errors import BadBundle
from contract.retrieval.features import FEATURES, HISTORY_MAX
from contract.retrieval.item_table import Neighbours
from export.onnx_export import PARITY_MAX, trace
from export.ort import max_difference, open_session, run
from model.sequence.encoder import LatestUserEncoder
from model.sequence.next_item import NextItemPart

PARITY_ROWS: Final = (1, 2, 7, 64)
GOLDEN_ROWS: Final = 16
Arrays = dict[str, npt.NDArray[Any]]


class PlainGraph(NamedTuple):
    """A graph of a part: a module, its inputs with the letters of their dynamic axes, and its output."""

    name: str
    module: nn.Module
    inputs: Mapping[str, tuple[str, ...]]
    output: str

    def run(self, inputs: Mapping[str, Tensor]) -> Arrays:
        """The output by name, computed by torch."""
        with torch.no_grad():
            return {self.output: self.module(*(inputs[name] for name in self.inputs)).numpy()}


class NextItemFiles(NamedTuple):
    """`files` by name; `arrays` of npz files by name; `golden`: inputs and outputs; `parity` by graph."""

    files: dict[str, bytes]
    arrays: dict[str, Arrays]
    golden: Arrays
    parity: dict[str, float]


def export_next_item(part: NextItemPart, metadata: Mapping[str, str]) -> NextItemFiles:
    """All files of a part; raises `BadBundle` if its order is worse than its candidates', or a graph not as torch."""
    check_part(part)
    exported = NextItemFiles({}, list_arrays(part), {}, {})
    for graph in build_graphs(part):
        content = trace_graph(graph, part, {**metadata, "tasks": graph.output})
        exported.files[f"{graph.name}.onnx"] = content
        exported.parity[graph.name] = check_parity(graph, content, part)
        inputs = draw_inputs(graph, part, GOLDEN_ROWS)
        exported.golden.update({f"{graph.name}/in/{name}": tensor.numpy() for name, tensor in inputs.items()})
        exported.golden.update({f"{graph.name}/out/{name}": array for name, array in graph.run(inputs).items()})
    return exported


def check_part(part: NextItemPart) -> None:
    """Raises `BadBundle` for weights that are not finite, and for a ranked order that is worse on held-out cases."""
    for module in (part.encoder, part.ranker):
        for name, value in module.state_dict().items():
            if not value.isfinite().all():
                raise BadBundle(f"Weights should be finite. Found others in {name} of the next-item part.")
    ranked, own = (part.evaluation.get(name, float("nan")) for name in ("ndcg_20", "own_ndcg_20"))
    if not ranked >= own:
        raise BadBundle(
            f"The ranked order should not be worse than the candidates' own on held-out cases. "
            f"Found NDCG@20 {ranked:.4f} and {own:.4f}."
        )


def list_arrays(part: NextItemPart) -> dict[str, Arrays]:
    """The arrays of each npz file, as `contract.bundle` names them."""
    table = part.table
    arrays = {
        "neighbours.npz": {"items": part.items, **list_neighbours(table.neighbours), "popular": part.popular},
        "vectors.npz": {
            "items": part.items,
            "vectors": table.vectors,
            "counts": table.counts,
            "recent_counts": table.recent_counts,
        },
    }
    if table.other_neighbours.rows.shape[1]:
        arrays["other_neighbours.npz"] = list_neighbours(table.other_neighbours)
    return arrays


def list_neighbours(neighbours: Neighbours) -> Arrays:
    fading = np.array(neighbours.fading, np.float32)
    return {"neighbours": neighbours.rows, "weights": neighbours.weights, "fading": fading}


def build_graphs(part: NextItemPart) -> list[PlainGraph]:
    sequence_inputs = dict.fromkeys(("rows", "actions", "ages"), ("N", "L"))
    return [
        PlainGraph("sequence", LatestUserEncoder(part.encoder), sequence_inputs, "user"),
        PlainGraph("ranker", part.ranker, {"features": ("P",)}, "score"),
    ]


def draw_inputs(graph: PlainGraph, part: NextItemPart, rows: int) -> dict[str, Tensor]:
    """Random inputs, in part of hostile values; the first user has no history. No personal data is in a golden file."""
    rng, length = np.random.default_rng(rows), min(rows + 2, HISTORY_MAX)
    if graph.name == "ranker":
        deviation = part.ranker.mean + part.ranker.deviation * torch.from_numpy(
            rng.standard_normal((rows, len(FEATURES)))
        )
        return {"features": deviation.float()}
    items = rng.integers(-1, len(part.items) + 3, (rows, length))
    items[:1] = 0
    ages = np.where(rng.random((rows, length)) < 0.1, np.nan, rng.exponential(9.0, (rows, length)))
    actions = rng.integers(-1, 6, (rows, length))
    return {name: torch.from_numpy(array) for name, array in (("rows", items), ("actions", actions))} | {
        "ages": torch.from_numpy(np.sort(ages, axis=1).astype(np.float32))
    }


def trace_graph(graph: PlainGraph, part: NextItemPart, metadata: Mapping[str, str]) -> bytes:
    axes = {name: dict(enumerate(letters)) for name, letters in graph.inputs.items()}
    axes[graph.output] = {0: next(iter(graph.inputs.values()))[0]}
    example = tuple(draw_inputs(graph, part, 3).values())
    return trace(graph.name, graph.module, example, axes, outputs=(graph.output,), metadata=metadata)


def check_parity(graph: PlainGraph, content: bytes, part: NextItemPart) -> float:
    """The largest difference between onnxruntime and torch; raises `BadBundle` above `PARITY_MAX`."""
    session, worst = open_session(f"{graph.name}.onnx", content), 0.0
    for rows in PARITY_ROWS:
        inputs = draw_inputs(graph, part, rows)
        actual = run(session, {name: tensor.numpy() for name, tensor in inputs.items()})
        worst = float(np.maximum(worst, max_difference(graph.run(inputs)[graph.output], actual[graph.output])))
    if not worst <= PARITY_MAX:
        raise BadBundle(f"{graph.name}.onnx should answer as torch does, to {PARITY_MAX}. Found {worst} between them.")
    return worst
