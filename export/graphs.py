"""From slices to ONNX, and the proof that onnxruntime computes what torch does."""

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import torch

from contract.errors import BadBundle
from export.inputs import draw_inputs
from export.slices import Slice
from model.network import Network

PARITY_MAX: Final = 1e-5
PARITY_ROWS: Final = (1, 2, 3, 7, 64, 500)
OPSET: Final = 17
Arrays = dict[str, npt.NDArray[Any]]


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
    if foreign := {entry.domain for entry in model.opset_import} - {"", "ai.onnx"}:
        raise BadBundle(f"{one.name}.onnx should need ONNX's own operators alone. Found {sorted(foreign)}.")
    onnx.helper.set_model_props(model, dict(metadata))
    content: bytes = model.SerializeToString()
    return content


def axis_of(name: str, one: Slice) -> str:
    """The letter of an input's or output's first axis, as `contract.bundle` writes them."""
    if "item_part" not in one.inputs:
        return "M" if one.name == "items" else "N"
    return "P" if "." not in name else {"recommend": "U", "search": "Q"}[one.name]


def check_parity(one: Slice, content: bytes, network: Network) -> float:
    """The largest difference of onnxruntime and torch; raises `BadBundle` over `PARITY_MAX` or if not finite."""
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    worst = 0.0
    for rows in PARITY_ROWS:
        inputs = draw_inputs(one, network, rows=rows, seed=rows)
        wanted, found = one.run(inputs), run(session, {name: array.numpy() for name, array in inputs.items()})
        for output, tensor in wanted.items():
            worst = max(worst, difference(tensor.numpy(), found[output]))
    if not worst <= PARITY_MAX:
        raise BadBundle(f"{one.name}.onnx should answer as torch does, to {PARITY_MAX}. Found {worst} between them.")
    return worst


def difference(wanted: npt.NDArray[Any], found: npt.NDArray[Any]) -> float:
    """The largest difference, relative to values over 1; NaN where something is not finite or shapes differ."""
    if wanted.shape != found.shape or not (np.isfinite(wanted).all() and np.isfinite(found).all()):
        return float("nan")
    return float(np.max(np.abs(wanted - found) / np.maximum(np.abs(wanted), 1.0), initial=0.0))


def run(session: ort.InferenceSession, inputs: Arrays) -> Arrays:
    """The outputs of a graph by name; inputs that it does not have are left out."""
    outputs: Sequence[str] = [output.name for output in session.get_outputs()]
    wanted = {entry.name for entry in session.get_inputs()}
    found = session.run(None, {name: array for name, array in inputs.items() if name in wanted})
    return dict(zip(outputs, found, strict=True))
