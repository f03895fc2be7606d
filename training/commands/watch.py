"""`python -m training watch`: monitors the serving model by served scores and labels, and rolls it back."""

import logging
import threading
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import torch

from contract.bundle_mirror import open_store, push, synchronize
from contract.errors import BadBundle, Unavailable
from contract.features.declaration import FeatureSet
from contract.settings.monitor import MonitorConfig
from contract.settings.reading import Settings
from training.erasure.execution import ErasureExecution
from training.feedback.chunked_reader import ChunkedReader
from training.monitor import metrics
from training.monitor.metrics import MetricsServer
from training.monitor.monitor import ModelMonitor, MonitorReport, to_json
from training.report.console import print_evaluation, print_json

log = logging.getLogger(__name__)


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--once", action="store_true", help="check once, then exit with a line of JSON")
    parser.add_argument("--bundles", type=Path, help="the folder of bundles, instead of the setting")


def run(args: Namespace, settings: Settings, features: FeatureSet) -> int:
    """Check once, or until `args.stop` is set."""
    bundles: Path = args.bundles or settings.bundles
    config = settings.watch
    torch.set_num_threads(1)
    with (
        open_monitor(settings, features, bundles, config) as monitor,
        closing(ErasureExecution(settings=settings, process="monitor", erase=monitor.erase)) as erasures,
    ):
        if args.once:
            erasures.apply()
            print_json(**to_json(check_mirrored(monitor, settings, bundles)))
            return 0
        return run_until_stopped(monitor, erasures, settings, config, args.stop, bundles)


@contextmanager
def open_monitor(
    settings: Settings, features: FeatureSet, bundles: Path, config: MonitorConfig
) -> Iterator[ModelMonitor]:
    """A monitor of this shop's topics. It reads scored rows from the latest portion, and the whole feedback topic."""
    topics = settings.topics
    scored = ChunkedReader(kafka=settings.kafka, topic=topics.scored, limit=config.portion, tail=config.portion)
    feedback = ChunkedReader(kafka=settings.kafka, topic=topics.feedback, limit=config.portion)
    try:
        yield ModelMonitor(
            settings=settings,
            features=features,
            bundles=bundles,
            config=config,
            scored=scored,
            feedback=feedback,
        )
    finally:
        scored.close()
        feedback.close()


def run_until_stopped(
    monitor: ModelMonitor,
    erasures: ErasureExecution,
    settings: Settings,
    config: MonitorConfig,
    stop: threading.Event,
    bundles: Path,
) -> int:
    """Check periodically until `stop` is set, and serve metrics."""
    server = MetricsServer(port=config.http_port)
    last = MonitorReport()
    log.info("Metrics are served on port %d.", server.port)
    try:
        while not stop.is_set():
            last = check_with_retry(monitor, settings, config, last, erasures.apply, bundles)
            stop.wait(config.pause_s)
    finally:
        server.close()
    return 0


def check_mirrored(monitor: ModelMonitor, settings: Settings, bundles: Path) -> MonitorReport:
    """Check once; where the settings name an object store, its pointer counts, and a rollback moves it."""
    if store := open_store(settings):
        synchronize(bundles, store)
    report = monitor.check()
    if store and report.withdrawal:
        push(bundles, store)
    return report


def check_with_retry(
    monitor: ModelMonitor,
    settings: Settings,
    config: MonitorConfig,
    last: MonitorReport,
    prepare: Callable[[], None] = lambda: None,
    bundles: Path | None = None,
) -> MonitorReport:
    """Check once and print metrics that have changed; returns the last report while Kafka is unavailable.

    `prepare` is called before; without its success nothing is checked.
    """
    try:
        prepare()
        report = check_mirrored(monitor, settings, bundles or settings.bundles)
    except (Unavailable, BadBundle) as error:
        metrics.RETRIES.inc()
        log.warning("%s. Trying again in %g s.", str(error).rstrip("."), config.pause_s)
        return last
    for version, evaluation in report.figures.items():
        if evaluation != last.figures.get(version):
            print_evaluation(settings.tasks, evaluation, f"{version} on matured labels")
    return report
