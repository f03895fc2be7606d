"""The smallest bundle that serves: graphs of a few nodes, written by hand, with predictable answers.

An order is fraud with a probability of sigmoid(amount - `threshold`). An item's part is its price: the higher the
price, the more likely the item is clicked, bought and relevant. Unknown values count as 0.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from contract.bundle import Manifest, publish
from contract.features.reading import read_features
from contract.tasks import Task
from testkit.checkout import ROOT

FEATURES: Final = read_features(ROOT / "features.toml")
NEEDED: Final = ("user_clicks_count_1d", "order_amount", "item_price", "item_category")
ITEMS: Final = ("i0", "i1", "i2", "i3")
TASKS: Final = (
    Task(name="fraud", kind="binary", groups=("order",), graph="decide"),
    Task(name="click", kind="binary", groups=("item",), graph="recommend"),
    Task(name="purchase", kind="binary", groups=("item",), graph="recommend", through="click"),
    Task(name="relevance", kind="graded", groups=("item",), graph="search"),
)
Arrays = dict[str, npt.NDArray[Any]]


def sigmoid(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return (1 / (1 + np.exp(-np.clip(x, -80, 80)))).astype(np.float32)


def first_column_nodes(name: str, to: str) -> list[onnx.NodeProto]:
    """Nodes that compute a vector from a matrix's first column, with 0 for NaN."""
    return [
        helper.make_node("Gather", [name, "zero_at"], [f"{to}_raw"], axis=1),
        helper.make_node("IsNaN", [f"{to}_raw"], [f"{to}_unknown"]),
        helper.make_node("Where", [f"{to}_unknown", "zero", f"{to}_raw"], [to]),
    ]


def make_graph(
    inputs: Mapping[str, tuple[int, int | None]],
    outputs: Mapping[str, int],
    nodes: Sequence[onnx.NodeProto],
    threshold: float,
) -> bytes:
    """A model; `inputs` by name: element type and number of columns, `outputs`: dimensions."""
    constants = {
        "zero": np.float32(0),
        "zero_at": np.int64(0),
        "threshold": np.float32(threshold),
        "one": np.array([1]),
    }
    shape: list[str | int | None] = ["N", 1]
    graph = helper.make_graph(
        list(nodes),
        "tiny",
        [helper.make_tensor_value_info(name, kind, [*shape[:1], columns]) for name, (kind, columns) in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape[:dims]) for name, dims in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def make_graphs(threshold: float, amounts: int = 1) -> dict[str, bytes]:
    """The graphs by file name. `amounts`: the number of columns of decide.onnx, of which it reads the first."""
    numbers, part = (TensorProto.FLOAT, 1), {"item_part": (TensorProto.FLOAT, 1)}
    node = helper.make_node
    decide = [
        *first_column_nodes("order.numbers", "amount"),
        node("Sub", ["amount", "threshold"], ["logit"]),
        node("Sigmoid", ["logit"], ["fraud"]),
    ]
    items = [*first_column_nodes("item.numbers", "price"), node("Unsqueeze", ["price", "one"], ["item_part"])]
    recommend = [
        *first_column_nodes("item_part", "price"),
        node("Sigmoid", ["price"], ["click"]),
        node("Mul", ["click", "click"], ["purchase"]),
    ]
    search = [*first_column_nodes("item_part", "price"), node("Sigmoid", ["price"], ["relevance"])]
    return {
        "decide.onnx": make_graph({"order.numbers": (TensorProto.FLOAT, amounts)}, {"fraud": 1}, decide, threshold),
        "items.onnx": make_graph({"item.numbers": numbers}, {"item_part": 2}, items, threshold),
        "recommend.onnx": make_graph(part, {"click": 1, "purchase": 1}, recommend, threshold),
        "search.onnx": make_graph(part, {"relevance": 1}, search, threshold),
    }


def make_golden(threshold: float) -> Arrays:
    values = np.array([[-1.5], [np.nan], [2.0]], np.float32)
    logits = np.nan_to_num(values[:, 0])
    click = sigmoid(logits)
    return {
        "decide/in/order.numbers": values + np.float32(threshold),
        "decide/out/fraud": sigmoid(np.nan_to_num(values[:, 0] + np.float32(threshold)) - np.float32(threshold)),
        "items/in/item.numbers": values,
        "items/out/item_part": logits.reshape(-1, 1),
        "recommend/in/item_part": values,
        "recommend/out/click": click,
        "recommend/out/purchase": click * click,
        "search/in/item_part": values,
        "search/out/relevance": click,
    }


def make_neighbours() -> Arrays:
    """Each item's neighbours are the next two; all items are popular, the last one most."""
    count = len(ITEMS)
    rows = np.array([[(n + 1) % count, (n + 2) % count] for n in range(count)], np.int32)
    return {
        "items": np.array([item.encode() for item in ITEMS]),
        "neighbours": rows,
        "weights": np.ones_like(rows, np.float32),
        "fading": np.array(1.0, np.float32),
        "popular": np.arange(count - 1, -1, -1, dtype=np.int32),
    }


def pack_npz(arrays: Arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # its keywords are arrays here
    return buffer.getvalue()


def make_manifest(version: str, needed: Sequence[str] = NEEDED) -> Manifest:
    return Manifest(
        version=version,
        parent=None,
        created_ms=1,
        features={name: FEATURES.digests.get(name, "foreign") for name in needed},
        tasks=TASKS,
        thresholds={"fraud": {"review": 0.1, "decline": 0.9}},
    )


def tiny_files(threshold: float = 100.0) -> dict[str, bytes]:
    return {
        **make_graphs(threshold),
        "golden.npz": pack_npz(make_golden(threshold)),
        "neighbours.npz": pack_npz(make_neighbours()),
    }


def publish_tiny(bundles: Path, version: str, threshold: float = 100.0) -> Manifest:
    """Publish a good bundle and point to it."""
    return publish(bundles, make_manifest(version), tiny_files(threshold))
