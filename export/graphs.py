"""From slices to ONNX, and the proof that onnxruntime computes what torch does."""

import io
import warnings
from collections.abc import Mapping
from typing import Final

import numpy as np
import onnx
import torch

from contract.errors import BadBundle
from export.inputs import draw_inputs
from export.proto import check_own
from export.sessions import difference, open_session, run
from export.slices import Slice
from model.network import Network

PARITY_MAX: Final = 1e-5
PARITY_ROWS: Final = (1, 2, 3, 7, 64, 500)
OPSET: Final = 17


def to_onnx(one: Slice, network: Network, metadata: Mapping[str, str]) -> bytes:
    """A slice as the bytes of a self-contained ONNX model whose first axes are free; raises `BadBundle`."""
    example = draw_inputs(one, network, rows=3, seed=0)
    sink = io.BytesIO()
    with warnings.catch_warnings():
        # The tracing exporter takes 0.1 s a graph where the capturing one takes 3 s and 10 s more to load; it announces
        # its end in torch 3 and warns of shapes that it takes as constants, which parity over many batch sizes checks.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            one.module.eval(),
            tuple(example[name] for name in one.inputs),
            sink,  # type: ignore[arg-type]  # The tracing exporter writes to any file.
            dynamo=False,
            opset_version=OPSET,
            input_names=list(one.inputs),
            output_names=list(one.outputs),
            dynamic_axes={name: {0: axis_of(name, one)} for name in (*one.inputs, *one.outputs)},
        )
    model = onnx.load_model_from_string(sink.getvalue())
    check_own(f"{one.name}.onnx", model)
    onnx.helper.set_model_props(model, dict(metadata))
    content: bytes = model.SerializeToString()
    return content


def axis_of(name: str, one: Slice) -> str:
    """The letter of an input's or output's first axis, as `contract.bundle` writes them."""
    if "item_part" not in one.inputs:
        return "M" if one.name == "items" else "N"
    return "P" if "." not in name else {"recommend": "U", "search": "Q"}[one.name]


def check_parity(one: Slice, content: bytes, network: Network) -> float:
    """The `parity` of a graph; raises `BadBundle` over `PARITY_MAX` or if an answer is not finite."""
    worst = parity(one, content, network)
    if not worst <= PARITY_MAX:
        raise BadBundle(f"{one.name}.onnx should answer as torch does, to {PARITY_MAX}. Found {worst} between them.")
    return worst


def parity(one: Slice, content: bytes, network: Network) -> float:
    """The largest difference of onnxruntime and torch over batches of `PARITY_ROWS`; NaN where one is not finite."""
    session = open_session(f"{one.name}.onnx", content)
    worst = 0.0
    for rows in PARITY_ROWS:
        inputs = draw_inputs(one, network, rows=rows, seed=rows)
        wanted, found = one.run(inputs), run(session, {name: array.numpy() for name, array in inputs.items()})
        for output, tensor in wanted.items():
            worst = float(
                np.maximum(worst, difference(tensor.numpy(), found[output]))
            )  # which keeps NaN, as max does not
    return worst
