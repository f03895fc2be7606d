"""Reads the parts of a bundle: graphs that onnxruntime runs, and arrays; no other worker module imports onnxruntime."""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from contract.bundle import Bundle
from contract.errors import BadBundle

GOLDEN_TOLERANCE: Final = 1e-4  # processors differ by less, a wrong weight by far more
# A folder that cannot exist: weights in separate files, which no digest covers, are not found.
NO_EXTERNAL_DATA: Final = "/dev/null/none"
Arrays = Mapping[str, npt.NDArray[Any]]


class GraphSession:
    """One graph of a bundle, on one thread; raises `BadBundle` unless onnxruntime runs it."""

    def __init__(self, bundle: Bundle, name: str) -> None:
        self.name = name
        self.session = open_graph(bundle, name)
        self.inputs = {node.name: tuple(node.shape) for node in self.session.get_inputs()}
        self.outputs = [node.name for node in self.session.get_outputs()]

    def run(self, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        """The outputs by name; inputs that the graph does not have are left out."""
        outputs = self.session.run(None, {name: array for name, array in inputs.items() if name in self.inputs})
        return dict(zip(self.outputs, outputs, strict=True))

    def check_golden(self, golden: Arrays, version: str) -> None:
        """Raises `BadBundle` unless the graph reproduces its golden outputs."""
        prefix = f"{self.name}/in/"
        inputs = {name.split("/")[2]: array for name, array in golden.items() if name.startswith(prefix)}
        if not inputs:
            raise BadBundle(f"Bundle {version} should have golden inputs for {self.name}.onnx. Found none.")
        with reject_on_error(f"{self.name}.onnx should run on its golden inputs"):
            outputs = self.run(inputs)
        for output, actual in outputs.items():
            expected = golden.get(f"{self.name}/out/{output}", np.empty(0))
            is_close = expected.shape == actual.shape and np.allclose(
                expected, actual, GOLDEN_TOLERANCE, GOLDEN_TOLERANCE
            )
            if not is_close:
                raise BadBundle(f"{self.name}.onnx should reproduce its golden `{output}`. Found other values.")


def load_arrays(bundle: Bundle, name: str) -> dict[str, npt.NDArray[Any]]:
    with reject_on_error(f"Bundle {bundle.version} should hold readable arrays in {name}"):
        archive = np.load(io.BytesIO(bundle.files[name]), allow_pickle=False)
        return {key: archive[key] for key in archive.files}


def open_graph(bundle: Bundle, name: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", NO_EXTERNAL_DATA)
    options.log_severity_level = 3
    with reject_on_error(f"{name}.onnx should be a graph that onnxruntime runs"):
        return ort.InferenceSession(bundle.files[f"{name}.onnx"], options, providers=["CPUExecutionProvider"])


@contextmanager
def reject_on_error(expectation: str) -> Iterator[None]:
    """Raises `BadBundle` for any error of the block: onnxruntime and zip raise many classes for a broken bundle."""
    try:
        yield
    except Exception as error:
        raise BadBundle(f"{expectation}. Found {error!r}.") from error
