"""The simulated shop of the quality benches: its history as examples, made once and kept while its code is the same."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.results.cache import load_or_make
from bench.results.digest import digest_inputs
from contract.errors import BadData
from contract.features.declaration import FeatureSet
from contract.history.format import HistoricEvent
from contract.settings.reading import Settings
from demo.simulator.shop import ShopSimulator
from training.data.examples import Examples, from_rows
from training.data.parquet import read_examples, write_examples
from training.replay.replay import Replay

TEST_SHARE: Final = 0.4  # the latest share of each family of examples
SEED: Final = 5
SHOP_CODE_PATHS: Final = (
    "bench/quality/simulated_shop.py",
    "contract",
    "demo/simulator",
    "training/data",
    "training/replay",
    "features.toml",
    "shop.toml",
)
LIBRARIES: Final = ("numpy", "pyarrow")


def add_shop_arguments(parser: argparse.ArgumentParser, *, days: float, people: int, items: int) -> None:
    """The options that set the size of the shop."""
    parser.add_argument("--days", type=float, default=days, help="simulated days")
    parser.add_argument("--people", type=int, default=people, help="users of the simulated shop")
    parser.add_argument("--items", type=int, default=items, help="items of the simulated shop")


def load_or_simulate(arguments: argparse.Namespace, settings: Settings, features: FeatureSet) -> Examples:
    """The examples of a shop of `days`, `people` and `items`, kept in the folder `kept`."""
    path: Path = arguments.kept / f"shop-{arguments.days:g}-{arguments.people}-{arguments.items}.parquet"

    def simulate() -> None:
        shop = ShopSimulator(SEED, users=arguments.people, items=arguments.items)
        replay = Replay(features=features, tasks=settings.tasks, feedback=settings.feedback)
        examples = from_rows(replay.run(simulate_events(shop, arguments.days)), features, settings.tasks)
        if not len(examples):
            raise BadData(f"{arguments.days:g} days of the shop should give examples. Found none.")
        write_examples(path, examples)

    digest = f"{digest_inputs(SHOP_CODE_PATHS, libraries=LIBRARIES)} {features.digest}"
    return load_or_make(path, digest, simulate, read=lambda path: read_examples(path, features, settings.tasks))


def simulate_events(shop: ShopSimulator, days: float) -> Iterator[HistoricEvent]:
    """The shop's events, decoded."""
    for record in shop.simulate_history(days):
        if not isinstance(record.event, bytes):  # histories have no malformed records
            yield HistoricEvent(record.kind, record.event)
