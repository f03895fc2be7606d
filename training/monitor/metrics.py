"""What Prometheus sees of the watcher. The names are promised in docs/metrics.md; training's one door to its client."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, start_http_server

from contract.errors import BadConfig
from training.trainer.evaluation import Evaluation

REGISTRY: Final = CollectorRegistry()
ProcessCollector(registry=REGISTRY)


def create_counter(name: str, text: str, *labels: str) -> Counter:
    return Counter(f"shopstream_{name}", text, labels, registry=REGISTRY)


def create_gauge(name: str, text: str, *labels: str) -> Gauge:
    return Gauge(f"shopstream_{name}", text, labels, registry=REGISTRY)


CHECKS: Final = create_counter("watch_looks_total", "Looks of the watcher that came to the end of both topics.")
RECORDS: Final = create_counter("watch_records_total", "Records that the watcher read, by topic.", "topic")
LEFT_OUT: Final = create_counter("watch_left_out_total", "Records that the watcher could not use, by reason.", "reason")
RETRIES: Final = create_counter("watch_retries_total", "Looks that found Kafka unavailable.")
FEEDBACK_TIME: Final = create_gauge(
    "watch_time_seconds", "The feedback's own time: when the latest label became known."
)
USER_SHARE: Final = create_gauge(
    "watch_people_share", "The share of people whose examples are kept, by graph.", "graph"
)
LIVE_METRIC: Final = create_gauge(
    "live_figure", "A figure of what a model said when it served.", "task", "version", "figure"
)
GAIN_LOST: Final = create_gauge(
    "live_gain_lost", "What the serving model loses of its parent's gain on its own rows.", "question"
)
ROLLBACKS: Final = create_counter(
    "rollbacks_total", "Bundles that were taken back because they were worse than their parent."
)
LEARNER_FROZEN: Final = create_gauge("learner_frozen", "1 while the learner is frozen by refused updates.")
DRIFT_BLOCKS: Final = create_counter(
    "drift_blocks_total", "Blocks of rows that were compared with the reference.", "kind"
)
DRIFT_ALARMS: Final = create_counter(
    "drift_alarms_total", "Columns found to be drawn from elsewhere.", "kind", "column"
)


class MetricsServer:
    """Metrics over HTTP on a port (0: any free one) until closed; raises `BadConfig` for one that is taken."""

    def __init__(self, *, port: int) -> None:
        try:
            self._server, self._thread = start_http_server(port, registry=REGISTRY)
        except OSError as error:
            raise BadConfig([f"`watch.http_port` should be free. Found {port}: {error}."]) from error
        self.port = self._server.server_port

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def set_live_metrics(evaluations: dict[str, Evaluation]) -> None:
    """Make these figures, by version, the ones that are shown; what has none any more is not shown on."""
    LIVE_METRIC.clear()
    for version, evaluation in evaluations.items():
        for task, figures in evaluation.items():
            for name, value in figures.items():
                LIVE_METRIC.labels(task, version, name).set(value)
