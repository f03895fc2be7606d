"""onnxruntime helpers: open a graph, run it, compare outputs. A module of its own, since torch is not loaded here."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from contract.errors import BadBundle

Arrays = dict[str, npt.NDArray[Any]]


def open_session(name: str, content: bytes) -> ort.InferenceSession:
    """A graph on one thread; raises `BadBundle` for invalid bytes."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # no log output: failures are raised
    try:
        return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's classes have no common base
        raise BadBundle(f"{name} should be a graph that onnxruntime runs. Found: {error}") from error


def run(session: ort.InferenceSession, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    """The outputs of a graph by name; inputs that the graph lacks are ignored."""
    output_names = [output.name for output in session.get_outputs()]
    input_names = {entry.name for entry in session.get_inputs()}
    outputs = session.run(None, {name: array for name, array in inputs.items() if name in input_names})
    return dict(zip(output_names, outputs, strict=True))


def max_difference(expected: npt.NDArray[Any], actual: npt.NDArray[Any]) -> float:
    """The largest difference, relative for values above 1; NaN for different shapes or values that are not finite."""
    if expected.shape != actual.shape or not (np.isfinite(expected).all() and np.isfinite(actual).all()):
        return float("nan")
    return float(np.max(np.abs(expected - actual) / np.maximum(np.abs(expected), 1.0), initial=0.0))
