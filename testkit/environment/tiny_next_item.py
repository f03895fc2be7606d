"""The smallest next-item part of a bundle: a user's vector is the mean of the items', and a ranker adds up features."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from contract.retrieval.features import FEATURES
from testkit.environment.tiny_bundle import ITEMS, Arrays, make_golden, pack_npz, tiny_files

INT64, FLOAT = TensorProto.INT64, TensorProto.FLOAT
VECTORS = np.eye(len(ITEMS), dtype=np.float32)
NEAREST_FIRST: Mapping[str, float] = {"similarity": 1.0}


def make_model(
    inputs: Mapping[str, tuple[int, Sequence[str | int]]],
    output: tuple[str, Sequence[str | int]],
    nodes: Sequence[onnx.NodeProto],
    constants: Arrays,
) -> bytes:
    """A graph of float output; `inputs`: element types and shapes by name."""
    graph = helper.make_graph(
        list(nodes),
        "tiny",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(output[0], FLOAT, output[1])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def make_sequence(vectors: npt.NDArray[np.float32]) -> bytes:
    """sequence.onnx: the unit vector in the direction of the mean of the items' vectors."""
    node = helper.make_node
    nodes = [
        node("Gather", ["table", "rows"], ["items"], axis=0),
        node("ReduceSum", ["items", "axis"], ["sum"], keepdims=0),
        node("ReduceL2", ["sum"], ["length"], axes=[1], keepdims=1),
        node("Div", ["sum", "length"], ["user"]),
    ]
    inputs = {"rows": (INT64, ["N", "L"]), "actions": (INT64, ["N", "L"]), "ages": (FLOAT, ["N", "L"])}
    table = np.concatenate([np.zeros((1, vectors.shape[1]), np.float32), vectors])
    return make_model(inputs, ("user", ["N", vectors.shape[1]]), nodes, {"table": table, "axis": np.array([1])})


def make_ranker(weights: Mapping[str, float], width: int = len(FEATURES)) -> bytes:
    """ranker.onnx: the sum of features, with these weights by name."""
    column = np.zeros((width, 1), np.float32)
    for name, weight in weights.items():
        column[FEATURES.index(name)] = weight
    nodes = [
        helper.make_node("MatMul", ["features", "weights"], ["sum"]),
        helper.make_node("Squeeze", ["sum", "axis"], ["score"]),
    ]
    constants = {"weights": column, "axis": np.array([1])}
    return make_model({"features": (FLOAT, ["P", width])}, ("score", ["P"]), nodes, constants)


def make_vectors(vectors: npt.NDArray[np.float32] = VECTORS, items: Sequence[str] = ITEMS) -> Arrays:
    return {
        "items": np.array([item.encode() for item in items]),
        "vectors": vectors,
        "counts": np.arange(1, len(items) + 1, dtype=np.float32),
        "recent_counts": np.ones(len(items), np.float32),
    }


def make_next_item_golden(
    vectors: npt.NDArray[np.float32] = VECTORS, weights: Mapping[str, float] = NEAREST_FIRST
) -> Arrays:
    rows = np.array([[1, 0], [2, 1]])
    user = vectors[rows[:, 0] - 1] + np.array([[0], [1]], np.float32) * vectors[rows[:, 1] - 1]
    features = np.eye(len(FEATURES), dtype=np.float32)
    return {
        "sequence/in/rows": rows,
        "sequence/in/actions": np.minimum(rows, 1),
        "sequence/in/ages": np.zeros(rows.shape, np.float32),
        "sequence/out/user": user / np.linalg.norm(user, axis=1, keepdims=True),
        "ranker/in/features": features,
        "ranker/out/score": np.array([weights.get(name, 0) for name in FEATURES], np.float32),
    }


def next_item_files(weights: Mapping[str, float] = NEAREST_FIRST) -> dict[str, bytes]:
    """The files of a tiny bundle with a next-item part: each item has a vector at right angles to all others."""
    return tiny_files() | {
        "sequence.onnx": make_sequence(VECTORS),
        "ranker.onnx": make_ranker(weights),
        "vectors.npz": pack_npz(make_vectors()),
        "golden.npz": pack_npz(make_golden(100.0) | make_next_item_golden(weights=weights)),
    }
