"""`python -m bench stranger`: a table never seen before, served live by the steps of the tutorial alone.

For each seed a shop of its own (see `orders.py`): 50,000 orders in records of its own form, with outcomes seven days
later. What happened before the latest quarter is exported, mapped, replayed, fitted and bootstrapped by the commands of
docs/tutorial.md with stock settings; the latest quarter is then produced to the shop's topics on Apache Kafka, day by
day with the outcomes of each day. AUC of the decisions, compared with scikit-learn's gradient boosting on the same
fields and simple counts by device. Results are kept, so an interrupted bench continues.
"""

import argparse
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from bench.quality.stranger.boosting import score_by_boosting
from bench.quality.stranger.live_shop import LiveShop
from bench.quality.stranger.orders import LABEL_DELAY_MS, OrderTable, simulate_orders
from bench.quality.stranger.records import count_settings
from bench.results.cache import ResultCache
from bench.results.digest import digest_inputs
from bench.results.report import print_missed, print_progress, print_result
from contract.arrays import Floats, Integers
from contract.units import DAY_MS
from devservers.apache_kafka import ApacheKafka
from devservers.redis_server import RedisServer
from training.metrics.ranking import RankedRows, auc

LIVE_SHARE: Final = 0.25
DRAWS: Final = 400
CODE_PATHS: Final = ("bench/quality/stranger", "contract", "export", "model", "training", "worker")
LIBRARIES: Final = ("torch", "scikit-learn", "numpy", "onnxruntime")


class StrangerRun(msgspec.Struct, frozen=True, kw_only=True):
    """One shop. `difference_ci`: the middle 95 % of ours minus boosting, over draws of whole customers."""

    seed: int
    ours_auc: float
    boosting_auc: float
    difference_ci: tuple[float, float]
    minutes: float
    decided: int
    missing: int


class StrangerOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """All shops. `minutes`: from the exports to the last decision, of all; `settings`: values that an owner writes."""

    rows: int
    runs: list[StrangerRun]
    minutes: float
    settings: int
    decided: int
    missing: int


def measure_shop(rows: int, seed: int, shop: LiveShop) -> StrangerRun:
    """Follow the tutorial with the shop of this seed, whose last outcome came a moment ago."""
    end_ms = time.time_ns() // 1_000_000 // DAY_MS * DAY_MS - LABEL_DELAY_MS
    table = simulate_orders(rows, seed, end_ms)
    cut = round(len(table) * (1 - LIVE_SHARE))
    started_s = time.monotonic()
    shop.write_folder(table, cut)
    shop.learn()
    p = collect_scores(shop.serve(table, cut), cut, len(table))
    minutes = (time.monotonic() - started_s) / 60
    return compare(table, cut, p, score_by_boosting(table, cut, seed), seed=seed, minutes=minutes)


def collect_scores(probability: Mapping[str, float], cut: int, rows: int) -> Floats:
    """The probabilities of the rows from `cut` on, NaN where none was decided."""
    return np.array([probability.get(f"P-{row:06}", np.nan) for row in range(cut, rows)])


def compare(table: OrderTable, cut: int, p: Floats, other: Floats, *, seed: int, minutes: float) -> StrangerRun:
    """Both AUCs on the orders that were decided, and the interval of their difference."""
    decided = np.isfinite(p)
    y, customer = table.bad[cut:][decided], table.customer[cut:][decided]
    return StrangerRun(
        seed=seed,
        ours_auc=round(auc(y, p[decided]), 4),
        boosting_auc=round(auc(y, other[decided]), 4),
        difference_ci=difference_interval(y, p[decided], other[decided], customer, seed),
        minutes=round(minutes, 2),
        decided=int(decided.sum()),
        missing=int((~decided).sum()),
    )


def difference_interval(y: Integers, p: Floats, other: Floats, customer: Integers, seed: int) -> tuple[float, float]:
    """The middle 95 % of the difference of both AUCs, over draws of whole customers."""
    rng = np.random.default_rng(seed)
    _, unit = np.unique(customer, return_inverse=True)
    ranked, ranked_other = RankedRows(y, p), RankedRows(y, other)
    differences = []
    for _ in range(DRAWS):
        weights = rng.poisson(1.0, unit.max() + 1)[unit].astype(np.float64)
        differences.append(float(ranked.aucs(weights)[0] - ranked_other.aucs(weights)[0]))
    low, high = np.nanpercentile(differences, (2.5, 97.5)).round(4).tolist()
    return low, high


def find_missed_aims(outcome: StrangerOutcome) -> Iterable[str]:
    """What the bench should show and does not, as sentences."""
    if outcome.missing:
        yield f"Each live order should be decided by the model. Found {outcome.missing} that were not."
    difference = np.mean([run.ours_auc - run.boosting_auc for run in outcome.runs])
    if difference < 0:
        yield f"The live AUC should be at least that of boosting. Found a mean {-difference:.4f} lower."


def main(argv: Sequence[str]) -> int:
    """0: every order is decided, and the mean AUC is at least that of boosting; 1: not so."""
    arguments = parse(argv)
    cache = ResultCache(
        path=arguments.kept, digest=digest_inputs(CODE_PATHS, libraries=LIBRARIES), result_type=StrangerRun
    )

    def measure(seed: int) -> StrangerRun:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shopstream-stranger-")))
            kafka, redis = stack.enter_context(ApacheKafka()), stack.enter_context(RedisServer())
            shop = LiveShop(folder=folder, bootstrap=kafka.bootstrap, redis_url=redis.url)
            run = measure_shop(arguments.rows, seed, shop)
        print_progress(run)
        return run

    runs = [
        cache.get_or_measure(f"{arguments.rows}/{seed}", lambda seed=seed: measure(seed))  # type: ignore[misc]
        for seed in arguments.seeds
    ]
    outcome = StrangerOutcome(
        rows=arguments.rows,
        runs=runs,
        minutes=round(sum(run.minutes for run in runs), 2),
        settings=count_settings(),
        decided=sum(run.decided for run in runs),
        missing=sum(run.missing for run in runs),
    )
    print_result(outcome, as_json=arguments.json)
    return 1 if print_missed(find_missed_aims(outcome)) else 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench stranger", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print the outcome as one line of JSON, the last one")
    parser.add_argument("--rows", type=int, default=50_000, help="orders of each shop")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="a shop for each")
    cache_path = Path(tempfile.gettempdir()) / "shopstream-bench-stranger.json"
    parser.add_argument("--kept", type=Path, default=cache_path, help="the file that keeps results")
    return parser.parse_args(argv)
