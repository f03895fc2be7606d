"""Checks of a graph's bytes before anything runs them: operators, external data, weights, metadata."""

from collections.abc import Iterator
from typing import Final

import numpy as np
import onnx
from onnx.external_data_helper import uses_external_data

from contract.errors import BadBundle

STANDARD_DOMAINS: Final = frozenset({"", "ai.onnx"})  # both names of the domain of ONNX's own operators


def read_proto(name: str, content: bytes) -> onnx.ModelProto:
    """The graph, checked to be self-contained with finite weights; raises `BadBundle`."""
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's own classes, which only onnx depends on
        raise BadBundle(f"{name} should be an ONNX model. Found: {error}") from error
    check_self_contained(name, model)
    for tensor in walk_tensors(model.graph):
        if tensor.dims and tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE):
            check_finite(name, tensor)  # scalars are not checked: a constant may be infinite on purpose
    return model


def check_self_contained(name: str, model: onnx.ModelProto) -> None:
    """Raises `BadBundle` for custom operators or external data."""
    domains = {entry.domain for entry in model.opset_import} | {node.domain for node in walk_nodes(model.graph)}
    if foreign := sorted(domains - STANDARD_DOMAINS) + [function.name for function in model.functions]:
        raise BadBundle(f"{name} should need ONNX's own operators alone. Found {foreign}.")
    if outside := [tensor.name for tensor in walk_tensors(model.graph) if uses_external_data(tensor)]:
        raise BadBundle(f"{name} should hold all of its data. Found data in another file for {outside[0]}.")


def check_finite(name: str, tensor: onnx.TensorProto) -> None:
    if not np.isfinite(onnx.numpy_helper.to_array(tensor)).all():
        raise BadBundle(f"{name} should have finite weights. Found others in {tensor.name or 'a constant'}.")


def walk_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node, including those within branches and loops."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from walk_nodes(inner)


def walk_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every tensor: weights and constants, including those within branches and loops."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from (*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors)
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from walk_tensors(inner)


def read_metadata(model: onnx.ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}
