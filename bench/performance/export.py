"""`python -m bench export`: do graphs answer as the network does, and what is it worth that recommend is split?

Parity: every graph against torch for batches of 1 to 500 rows, among them ids that nobody knows, NaN, infinities; the
largest difference of any answer, of values over 1 relative to them. Speed: the candidates of one user, by the split
graph, which takes the items' finished parts, and by a graph of the same network that takes the features of each pair.
Microseconds of CPU on one thread; ways take turns, so that noise meets all alike, and medians are compared.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from bench.performance.load.synthetic_network import draw_network
from contract.errors import BadBundle
from contract.graphs import RECOMMEND
from export.fuzz_inputs import draw_inputs
from export.onnx_export import PARITY_ROWS, measure_parity, to_onnx
from export.ort import Arrays, open_session, run
from export.subgraphs import RowsGraph, Subgraph, block_input_names, build_subgraphs
from model.checkpoint import read_checkpoint
from model.network import Network

CANDIDATES: Final = (100, 500)
CATALOGUE: Final = 5_000
PARITY_AIM, SPEEDUP_AIM = 1e-6, 1.6
TimedCall = Callable[[], object]


class ExportFigures(msgspec.Struct, frozen=True):
    """`split_speedup`: candidates -> times faster than the plain graph; `onnxruntime_to_eager`: than torch, split."""

    max_abs_difference: float
    split_speedup: dict[str, float]
    onnxruntime_to_eager: float

    @property
    def missed_aims(self) -> Iterator[str]:
        if not self.max_abs_difference <= PARITY_AIM:
            yield f"Graphs should answer as torch does, to {PARITY_AIM:g}. Found {self.max_abs_difference:.1e} between."
        for candidates, times in self.split_speedup.items():
            if not times >= SPEEDUP_AIM:
                yield (
                    f"The split graph should be {SPEEDUP_AIM} times as fast for {candidates} candidates. Found {times}."
                )


def main(argv: Sequence[str]) -> int:
    """Measure; 0: every aim is reached, 1: some is not, 2: the checkpoint cannot be read."""
    arguments = parse(argv)
    torch.set_num_threads(1)
    try:
        networks = load_networks(arguments)
    except BadBundle as error:
        print(error, file=sys.stderr)
        return 2
    largest_by_graph = measure_differences(networks)
    times = {
        candidates: measure_times(make_calls(networks[0], candidates), arguments.rounds) for candidates in CANDIDATES
    }
    figures = ExportFigures(
        max_abs_difference=find_largest(largest_by_graph),
        split_speedup={
            str(candidates_count): round(us["plain graph"] / us["split graph"], 2)
            for candidates_count, us in times.items()
        },
        onnxruntime_to_eager=round(times[100]["split, torch"] / times[100]["split graph"], 2),
    )
    for sentence in figures.missed_aims:
        print(f"Missed: {sentence}", file=sys.stderr)
    print_figures(figures, largest_by_graph, times, as_json=arguments.json)
    return 1 if list(figures.missed_aims) else 0


def load_networks(arguments: argparse.Namespace) -> list[Network]:
    """The learned network that was named, or a drawn one for each seed."""
    if arguments.checkpoint:
        return [read_checkpoint(arguments.checkpoint).build_network()]
    return [draw_network(seed) for seed in range(arguments.seeds)]


def measure_differences(networks: Sequence[Network]) -> dict[str, float]:
    """Graph -> its largest difference from torch in any network and batch."""
    largest_by_graph = dict[str, float]()
    for network in networks:
        for subgraph in build_subgraphs(network):
            difference = measure_parity(subgraph, to_onnx(subgraph, network, {}), network)
            largest_by_graph[subgraph.name] = float(
                np.maximum(largest_by_graph.get(subgraph.name, 0.0), difference)
            )  # NaN stays
    return largest_by_graph


def find_largest(largest_by_graph: Mapping[str, float]) -> float:
    return float(np.max(list(largest_by_graph.values())))  # NaN where one is, as the built-in `max` would not say


def make_calls(network: Network, candidates: int) -> dict[str, TimedCall]:
    """The same candidates of the same user, answered in each way, checked to be answered alike."""
    items, split = (
        next(subgraph for subgraph in build_subgraphs(network) if subgraph.name == name)
        for name in ("items", "recommend")
    )
    plain_graph_slice = make_plain_slice(network)
    split_graph, plain_graph = (
        open_session(subgraph.name, to_onnx(subgraph, network, {})) for subgraph in (split, plain_graph_slice)
    )
    catalogue = to_arrays(draw_inputs(items, network, rows=CATALOGUE, seed=1))
    user = to_arrays(draw_inputs(split, network, rows=2, seed=2))
    user = {name: array for name, array in user.items() if "." in name}  # one row
    table = items.run(to_tensors(catalogue))["item_part"].numpy()
    chosen = np.random.default_rng(3).choice(CATALOGUE, candidates, replace=False)
    rows = np.zeros(candidates, np.int64)

    split_inputs = {**user, "item_part": table[chosen], "user": rows}
    plain_inputs = {name: array[rows] for name, array in user.items()} | {
        n: array[chosen] for n, array in catalogue.items()
    }
    tensors = to_tensors(split_inputs)

    calls: dict[str, Callable[[], Mapping[str, Any]]] = {
        "split graph": lambda: run(split_graph, split_inputs),
        "plain graph": lambda: run(plain_graph, plain_inputs),
        "split, torch": lambda: split.run(tensors),
    }
    check_equal_answers({name: to_arrays(call()) for name, call in calls.items()})
    return dict(calls)


def make_plain_slice(network: Network) -> Subgraph:
    """What recommend would be without its split: the features of each pair -> the same answers."""
    views = [view for view in network.views if view.graph == "recommend"]
    groups = [group for group in RECOMMEND.groups if any(group in view.groups for view in views)]
    outputs = tuple(task.name for view in views for task in view.tasks)
    return Subgraph("plain", RowsGraph(network, views, groups), block_input_names(groups), outputs)


def check_equal_answers(answers: Mapping[str, Arrays]) -> None:
    for name, actual in answers.items():
        for task, expected in answers["split graph"].items():
            np.testing.assert_allclose(actual[task], expected, atol=1e-5, err_msg=f"{name} should answer {task} alike")


def to_tensors(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def to_arrays(values: Mapping[str, Any]) -> Arrays:
    return {name: np.asarray(value) for name, value in values.items()}


def measure_times(calls: Mapping[str, TimedCall], rounds: int) -> dict[str, float]:
    """Median CPU of one call of each way, microseconds."""
    times_by_name: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            started_s = time.process_time()
            for _ in range(10):
                call()
            times_by_name[name].append((time.process_time() - started_s) * 1e5)
    return {name: statistics.median(times) for name, times in times_by_name.items()}


def print_figures(
    figures: ExportFigures,
    largest_by_graph: Mapping[str, float],
    times: Mapping[int, Mapping[str, float]],
    *,
    as_json: bool,
) -> None:
    for graph, difference in largest_by_graph.items():
        print(f"{graph:10} at most {difference:.1e} from torch, over batches of {', '.join(map(str, PARITY_ROWS))}")
    for candidates, us in times.items():
        print(f"{candidates:10} candidates: " + ", ".join(f"{name} {call_us:,.0f} us" for name, call_us in us.items()))
    if as_json:
        print(msgspec.json.encode(figures).decode())


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench export", description=__doc__)
    parser.add_argument("--json", action="store_true", help="the figures as JSON, in the last line")
    parser.add_argument("--seeds", type=int, default=5, help="drawn networks whose graphs are compared with torch")
    parser.add_argument("--checkpoint", type=Path, help="a learned network in place of the drawn ones")
    parser.add_argument("--rounds", type=int, default=100, help="turns of ten calls that each way has")
    return parser.parse_args(argv)
