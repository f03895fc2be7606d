"""`python -m bench swap`: bundle swaps under load, and the time from a label to a model that has learned from it.

First two bundles are made current in turn, as fast as the workers of both lanes activate them, under a steady load on
Apache Kafka: no event should be lost, no batch be answered by two models, pauses be short, and memory not grow. Then
labels arrive, and the time until a model that has learned from them decides is measured.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import msgspec
import psutil

from bench.performance.load.workload import make_checkpoint
from bench.performance.measure.environment import BenchEnvironment
from bench.performance.measure.label_to_serving import LabelToServingRun
from bench.performance.measure.swap_run import POLL_MS, SwapResult, SwapRun
from bench.results.report import print_missed, print_progress, print_result
from bench.results.statistics import percentiles
from contract.bundle import read_bundle, set_current
from contract.settings.reading import read_settings
from devservers.apache_kafka import ApacheKafka
from devservers.redis_server import RedisServer
from export.exporter import export
from model.checkpoint import write_checkpoint
from worker.model.onnx_model import Model

SWAPS, ROUNDS = 200, 10
WARMUP_S: Final = 20.0
PAUSE_MAX_MS, LABEL_MAX_S = 50.0, 60.0
MODELS_MAX: Final = 2  # by whose size memory may grow


class SwapFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of a run. `rss_mb`: the worker that grew most, before and after the swaps; `model_mb`: one model."""

    swaps: int
    lost: int
    mixed_batches: int
    pause_p99_ms: float
    rss_mb: list[float]
    label_to_serving_s: dict[str, float]
    model_mb: float
    detail: SwapResult

    @property
    def missed_aims(self) -> Iterator[str]:
        """The missed aims."""
        if self.lost or self.detail.contradicting:
            yield f"nothing lost and nothing contradicting: {self.lost} and {self.detail.contradicting}"
        if self.mixed_batches:
            yield f"no batch of two models: {self.mixed_batches}"
        if self.pause_p99_ms > PAUSE_MAX_MS:
            yield f"a pause of {PAUSE_MAX_MS:g} ms at most (p99): {self.pause_p99_ms:g}"
        if self.rss_mb[1] > self.rss_mb[0] + MODELS_MAX * self.model_mb:
            yield f"memory growth of at most {MODELS_MAX} models: {self.rss_mb}, a model has {self.model_mb:g} MB"
        if self.label_to_serving_s["p50"] > LABEL_MAX_S:
            yield f"{LABEL_MAX_S:g} s from label to serving (p50): {self.label_to_serving_s['p50']:g}"


def publish_two_bundles(bundles: Path, seed: int) -> list[str]:
    """Two random networks as bundles, each with the checkpoint that the learner continues from."""
    versions = []
    for number in range(2):
        checkpoint = make_checkpoint(seed + number, seed)
        write_checkpoint(bundles, checkpoint)
        versions.append(export(checkpoint, bundles, {}).manifest.version)
    return versions


def measure_model_mb(bundles: Path, version: str) -> float:
    """Memory of one more open model; call it in a fresh process, whose allocator has no free memory to reuse."""
    _, features = read_settings()
    models = [Model(read_bundle(bundles, version), features) for _ in range(2)]
    before = psutil.Process().memory_info().rss
    models += [Model(read_bundle(bundles, version), features) for _ in range(3)]
    return round((psutil.Process().memory_info().rss - before) / 3e6, 1)


def measure(kafka: ApacheKafka, server: RedisServer, folder: Path, arguments: argparse.Namespace) -> SwapFigures:
    """Swap, then label, each on its own topics."""
    bundles = folder / "bundles"
    versions = publish_two_bundles(bundles, arguments.seed)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
        size = fresh.submit(measure_model_mb, bundles, versions[0]).result()
    swap_poll = {"SHOPSTREAM_WORKER__SWAP_POLL_MS": str(POLL_MS)}
    environments = [
        BenchEnvironment(
            kafka=kafka,
            redis=server,
            folder=folder,
            prefix=prefix,
            load_prefix=prefix,
            shared_kinds=(),
            overrides=overrides,
        )
        for prefix, overrides in (("swap.", swap_poll), ("learn.", {}))
    ]
    swap_run = SwapRun(kafka=kafka, environment=environments[0], versions=versions, seed=arguments.seed)
    swap_result = swap_run.run(arguments.swaps, arguments.warm, print_progress)
    print_progress(swap_result)
    set_current(bundles, versions[-1])
    seconds = LabelToServingRun(environment=environments[1], seed=arguments.seed + 1).run(
        arguments.rounds, print_progress
    )
    return SwapFigures(
        swaps=swap_result.swaps,
        lost=swap_result.lost,
        mixed_batches=swap_result.mixed_batches,
        pause_p99_ms=swap_result.pause_ms["p99"],
        rss_mb=swap_result.rss_mb,
        label_to_serving_s=percentiles(seconds),
        model_mb=size,
        detail=swap_result,
    )


def main(argv: Sequence[str]) -> int:
    """Measure on its own servers. 0: every aim is met."""
    arguments = parse(argv)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shopstream-swap-")))
        kafka, server = stack.enter_context(ApacheKafka()), stack.enter_context(RedisServer())
        figures = measure(kafka, server, folder, arguments)
    is_missed = print_missed(figures.missed_aims)
    print_result(figures, as_json=arguments.json)
    return 1 if is_missed else 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench swap", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the figures as one line of JSON, the last one")
    parser.add_argument("--swaps", type=int, default=SWAPS, help="number of swaps")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds of labels")
    parser.add_argument("--warm", type=float, default=WARMUP_S, help="seconds under load before the first swap")
    parser.add_argument("--seed", type=int, default=20111209)
    return parser.parse_args(argv)
