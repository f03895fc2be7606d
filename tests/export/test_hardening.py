"""No input makes a graph fail: unknown, absent and out-of-range values have learned representations.

Graphs are run by onnxruntime, as in the worker: all guards against bad input are part of the graph.
"""

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pytest

from contract.bundle import Bundle, read_bundle
from export.exporter import ExportResult
from export.ort import Arrays, open_session, run
from model.feature_statistics import table_name
from model.network import Network
from tests.model.small import FEATURES, draw_blocks, make_network

SIDES: Final = {
    "items": ("item",),
    "recommend": ("user", "context"),
    "decide": ("user", "order", "context"),
    "search": ("user", "query"),
    "classify": ("item",),
}
BOUNDS: Final = np.iinfo(np.int64)
UNKNOWN_IDS: Final = (50, 10**6, -1, BOUNDS.min, BOUNDS.max)  # tests.model.small has the ids 1 to 49
EXTREME_NUMBERS: Final = (np.nan, np.inf, -np.inf, 3.4e38, -3.4e38, 1e-45)


@pytest.fixture(scope="module")
def network() -> Network:
    return make_network()


@pytest.fixture(scope="module")
def bundle(bundles: Path, exported: ExportResult) -> Bundle:
    return read_bundle(bundles, exported.manifest.version)


def make_usual_inputs(graph: str, rows: int, network: Network) -> Arrays:
    """A batch of `rows` equal rows of usual values, and the other inputs that graphs take."""
    blocks = draw_blocks(1, 5)
    inputs: Arrays = {}
    for group in SIDES[graph]:
        inputs[f"{group}.numbers"] = np.repeat(np.nan_to_num(blocks[group].numbers, nan=1.0), rows, 0)
        inputs[f"{group}.ids"] = np.repeat(blocks[group].ids.clip(1, 49), rows, 0)
    wide = (network.config.hidden + network.config.factors) * len(network.item_owners)
    part = np.random.default_rng(5).normal(size=(1, wide)).astype(np.float32)
    row = np.arange(rows)
    return inputs | {"item_part": np.repeat(part, rows, 0), "user": row, "search": row}


def run_graph(bundle: Bundle, graph: str, inputs: Arrays) -> npt.NDArray[Any]:
    """The outputs of a graph for each row, concatenated (N, outputs)."""
    outputs = run(open_session(f"{graph}.onnx", bundle.files[f"{graph}.onnx"]), inputs)
    return np.concatenate([answer[:, None] if answer.ndim == 1 else answer for answer in outputs.values()], 1)


def add_extreme_values(inputs: Arrays) -> Arrays:
    """The rows after the first get an extreme value in one column each, the last seven rows in all columns."""
    extreme = {name: array.copy() for name, array in inputs.items()}
    row = 1
    for name in (name for name in inputs if "." in name):
        for value in EXTREME_NUMBERS if name.endswith("numbers") else (0, *UNKNOWN_IDS):
            for column in range(inputs[name].shape[1]):
                extreme[name][row, column] = value
                row += 1
            extreme[name][-1 - row % 7] = value
    assert row < len(inputs["user"]) - 7
    return extreme


@pytest.mark.parametrize("graph", SIDES)
def test_extreme_rows_give_finite_outputs_and_do_not_change_other_rows(
    bundle: Bundle, network: Network, graph: str
) -> None:
    # given
    plain = make_usual_inputs(graph, 400, network)
    extreme = add_extreme_values(plain)
    # when
    actual = run_graph(bundle, graph, extreme)
    # then
    assert np.isfinite(actual).all()
    np.testing.assert_allclose(actual[0], run_graph(bundle, graph, plain)[0], atol=1e-6, rtol=1e-6)
    for row in (1, 57, 393, 399):
        alone = {name: array[row : row + 1] for name, array in extreme.items()}
        alone |= {"user": np.zeros(1, np.int64), "search": np.zeros(1, np.int64)}
        np.testing.assert_allclose(run_graph(bundle, graph, alone)[0], actual[row], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("graph", SIDES)
def test_an_empty_batch_has_empty_outputs(bundle: Bundle, network: Network, graph: str) -> None:
    assert len(run_graph(bundle, graph, make_usual_inputs(graph, 0, network))) == 0


@pytest.mark.parametrize("feature", ["surface", "payment", "recent"])
def test_unseen_ids_use_the_out_of_vocabulary_rows(bundle: Bundle, network: Network, feature: str) -> None:
    # given rows with a known id, without an id, and with out-of-vocabulary ids
    group = next(declared.group for declared in FEATURES.features if declared.name == feature)
    span = next(span for span in FEATURES.spans(group) if span.feature.name == feature)
    spare = network.statistics.known[table_name(span.feature)].spare
    inputs = make_usual_inputs("decide", 3 + len(UNKNOWN_IDS), network)
    ids = inputs[f"{group}.ids"]
    ids[:, span.start : span.start + span.width] = 0
    ids[:, span.start] = (7, 0, 10**9 * spare, *UNKNOWN_IDS)
    # when
    known, absent, first, *unknown = run_graph(bundle, "decide", inputs)[:, 0]
    # then ids that share a row have equal outputs, different from those of a known and of an absent id
    same = [answer for ident, answer in zip(UNKNOWN_IDS, unknown, strict=True) if ident % spare == 0]
    assert same
    np.testing.assert_allclose(same, first, atol=1e-6)
    for other in (known, absent):
        assert min(abs(other - answer) for answer in (first, *unknown)) > 1e-5


def test_out_of_range_numbers_are_clipped_and_unknown_ones_have_their_own_value(
    bundle: Bundle, network: Network
) -> None:
    # given
    column = [feature.name for feature in FEATURES.numbers("order")].index("amount")
    bounds = network.statistics.numbers["order"][column]
    inputs = make_usual_inputs("decide", 8, network)
    low, high, mean = bounds.low, bounds.high, bounds.mean
    inputs["order.numbers"][:, column] = (low, -np.inf, -3e38, high, np.inf, 3e38, np.nan, np.expm1(mean))
    # when
    lowest, *too_low, highest, above, far_above, unknown, average = run_graph(bundle, "decide", inputs)[:, 0]
    # then
    np.testing.assert_allclose(too_low, lowest, atol=1e-7)
    np.testing.assert_allclose([above, far_above], highest, atol=1e-7)
    assert min(abs(unknown - other) for other in (lowest, highest, average)) > 1e-5


def test_an_empty_sequence_has_its_own_row_and_gaps_are_ignored(bundle: Bundle, network: Network) -> None:
    # given
    span = next(span for span in FEATURES.spans("user") if span.feature.name == "recent")
    inputs = make_usual_inputs("decide", 3, network)
    recent = inputs["user.ids"][:, span.start : span.start + span.width]
    recent[:] = 0
    recent[1, 0], recent[2, -1] = 7, 7
    # when
    empty, first, last = run_graph(bundle, "decide", inputs)[:, 0]
    # then
    assert abs(first - last) < 1e-6
    assert abs(empty - first) > 1e-6
