"""`python -m bench export`: parity of the exported graphs with their network, and the gain of splitting `recommend`.

Parity: every graph against torch for batches of 1 to 500 rows, with out-of-vocabulary ids, NaN and infinities; the
largest difference of any output, relative for values over 1. Speed: the candidates of one user, by the split graph,
which takes item embeddings, and by a graph of the same network that takes the features of each user-item pair.
Microseconds of CPU on one thread; variants take turns, so noise affects all, and medians are compared.
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
from bench.results.report import print_json, print_missed
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
    """`split_speedup`: candidates -> speed-up over the plain graph; `onnxruntime_to_eager`: over torch, both split."""

    max_abs_difference: float
    split_speedup: dict[str, float]
    onnxruntime_to_eager: float

    @property
    def missed_aims(self) -> Iterator[str]:
        if not self.max_abs_difference <= PARITY_AIM:
            difference = f"{self.max_abs_difference:.1e}"
            yield f"Graphs should equal torch within {PARITY_AIM:g}. Found a difference of {difference}."
        for candidates, times in self.split_speedup.items():
            if not times >= SPEEDUP_AIM:
                yield (
                    f"The split graph should be {SPEEDUP_AIM} times as fast for {candidates} candidates. Found {times}."
                )


def main(argv: Sequence[str]) -> int:
    """Measure. 0: every aim is met; 1: one is missed; 2: the checkpoint cannot be read."""
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
    is_missed = print_missed(figures.missed_aims)
    print_figures(figures, largest_by_graph, times, as_json=arguments.json)
    return 1 if is_missed else 0


def load_networks(arguments: argparse.Namespace) -> list[Network]:
    """The learned network that was named, or a drawn one for each seed."""
    if arguments.checkpoint:
        return [read_checkpoint(arguments.checkpoint).build_network()]
    return [draw_network(seed) for seed in range(arguments.seeds)]


def measure_differences(networks: Sequence[Network]) -> dict[str, float]:
    """Graph -> its largest difference from torch over all networks and batches."""
    largest_by_graph = dict[str, float]()
    for network in networks:
        for subgraph in build_subgraphs(network):
            difference = measure_parity(subgraph, to_onnx(subgraph, network, {}), network)
            previous = largest_by_graph.get(subgraph.name, 0.0)
            largest_by_graph[subgraph.name] = float(np.maximum(previous, difference))  # keeps NaN
    return largest_by_graph


def find_largest(largest_by_graph: Mapping[str, float]) -> float:
    return float(np.max(list(largest_by_graph.values())))  # NaN if there is one, unlike the built-in `max`


def make_calls(network: Network, candidates: int) -> dict[str, TimedCall]:
    """Calls that answer the same candidates of the same user by each variant, after a check that the answers agree."""
    items, split = (
        next(subgraph for subgraph in build_subgraphs(network) if subgraph.name == name)
        for name in ("items", "recommend")
    )
    plain_subgraph = make_plain_subgraph(network)
    split_graph, plain_graph = (
        open_session(subgraph.name, to_onnx(subgraph, network, {})) for subgraph in (split, plain_subgraph)
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


def make_plain_subgraph(network: Network) -> Subgraph:
    """The `recommend` graph without its split: the features of each pair -> the same answers."""
    views = [view for view in network.views if view.graph == "recommend"]
    groups = [group for group in RECOMMEND.groups if any(group in view.groups for view in views)]
    outputs = tuple(task.name for view in views for task in view.tasks)
    return Subgraph("plain", RowsGraph(network, views, groups), block_input_names(groups), outputs)


def check_equal_answers(answers: Mapping[str, Arrays]) -> None:
    for name, actual in answers.items():
        for task, expected in answers["split graph"].items():
            np.testing.assert_allclose(actual[task], expected, atol=1e-5, err_msg=f"{name} should give the same {task}")


def to_tensors(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def to_arrays(values: Mapping[str, Any]) -> Arrays:
    return {name: np.asarray(value) for name, value in values.items()}


def measure_times(calls: Mapping[str, TimedCall], rounds: int) -> dict[str, float]:
    """Median CPU of one call of each variant, in microseconds."""
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
        rows = ", ".join(map(str, PARITY_ROWS))
        print(f"{graph:10} differs from torch by at most {difference:.1e} over batches of {rows} rows")
    for candidates, us in times.items():
        print(f"{candidates:10} candidates: " + ", ".join(f"{name} {call_us:,.0f} us" for name, call_us in us.items()))
    if as_json:
        print_json(figures)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench export", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the figures as one line of JSON, the last one")
    parser.add_argument(
        "--seeds", type=int, default=5, help="number of random networks whose graphs are compared with torch"
    )
    parser.add_argument("--checkpoint", type=Path, help="a trained network in place of the random ones")
    parser.add_argument("--rounds", type=int, default=100, help="rounds of ten calls of each variant")
    return parser.parse_args(argv)
