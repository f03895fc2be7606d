"""Exports subgraphs to ONNX and checks that onnxruntime reproduces torch."""

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from contract.errors import BadBundle
from export.fuzz_inputs import draw_inputs
from export.onnx_checks import check_self_contained
from export.ort import max_difference, open_session, run
from export.subgraphs import Subgraph
from model.network import Network

PARITY_MAX: Final = 1e-5
PARITY_ROWS: Final = (1, 2, 3, 7, 64, 500)
OPSET: Final = 17


def to_onnx(subgraph: Subgraph, network: Network, metadata: Mapping[str, str]) -> bytes:
    """A subgraph as the bytes of a self-contained ONNX model with dynamic first axes; raises `BadBundle`."""
    example = draw_inputs(subgraph, network, rows=3, seed=0)
    axes = {name: {0: axis_name(name, subgraph)} for name in (*subgraph.inputs, *subgraph.outputs)}
    arguments = tuple(example[name] for name in subgraph.inputs)
    return trace(subgraph.name, subgraph.module, arguments, axes, outputs=subgraph.outputs, metadata=metadata)


def trace(
    name: str,
    module: nn.Module,
    example: tuple[Tensor, ...],
    axes: Mapping[str, Mapping[int, str]],
    *,
    outputs: Sequence[str],
    metadata: Mapping[str, str],
) -> bytes:
    """A module as the bytes of a self-contained ONNX model; raises `BadBundle`.

    `axes`: the dynamic ones by input, in the order of the arguments, and by output.
    """
    sink = io.BytesIO()
    with warnings.catch_warnings():
        # The tracing exporter takes 0.1 s a graph, the capturing one 3 s and 10 s more to load. It warns of its removal
        # in torch 3, and of shapes that become constants, which is checked by parity over many batch sizes.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            example,
            sink,  # type: ignore[arg-type]  # The tracing exporter writes to any file.
            dynamo=False,
            opset_version=OPSET,
            input_names=[entry for entry in axes if entry not in outputs],
            output_names=list(outputs),
            dynamic_axes={entry: dict(letters) for entry, letters in axes.items()},
        )
    model = onnx.load_model_from_string(sink.getvalue())
    check_self_contained(f"{name}.onnx", model)
    onnx.helper.set_model_props(model, dict(metadata))
    content: bytes = model.SerializeToString()
    return content


def axis_name(name: str, subgraph: Subgraph) -> str:
    """The letter of an input's or output's first axis in `contract.bundle`."""
    if "item_part" not in subgraph.inputs:
        return "M" if subgraph.name == "items" else "N"
    return "P" if "." not in name else {"recommend": "U", "search": "Q"}[subgraph.name]


def check_parity(subgraph: Subgraph, content: bytes, network: Network) -> float:
    """`measure_parity` of a graph; raises `BadBundle` above `PARITY_MAX` or for outputs that are not finite."""
    worst = measure_parity(subgraph, content, network)
    if not worst <= PARITY_MAX:
        raise BadBundle(
            f"{subgraph.name}.onnx should answer as torch does, to {PARITY_MAX}. Found {worst} between them."
        )
    return worst


def measure_parity(subgraph: Subgraph, content: bytes, network: Network) -> float:
    """The largest difference between onnxruntime and torch over batches of `PARITY_ROWS`; NaN if one is not finite."""
    session = open_session(f"{subgraph.name}.onnx", content)
    worst = 0.0
    for rows in PARITY_ROWS:
        inputs = draw_inputs(subgraph, network, rows=rows, seed=rows)
        expected, actual = subgraph.run(inputs), run(session, {name: array.numpy() for name, array in inputs.items()})
        for output, tensor in expected.items():
            difference = max_difference(tensor.numpy(), actual[output])
            worst = float(np.maximum(worst, difference))  # unlike max(), it propagates NaN
    return worst
