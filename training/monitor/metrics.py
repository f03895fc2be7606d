"""The Prometheus metrics of the monitor, as docs/metrics.md declares them; the only user of the client in training."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, start_http_server

from contract.ports import serve_on_free_port
from training.trainer.evaluation import Evaluation

REGISTRY: Final = CollectorRegistry()
ProcessCollector(registry=REGISTRY)


def create_counter(name: str, help_text: str, *labels: str) -> Counter:
    return Counter(f"shopstream_{name}", help_text, labels, registry=REGISTRY)


def create_gauge(name: str, help_text: str, *labels: str) -> Gauge:
    return Gauge(f"shopstream_{name}", help_text, labels, registry=REGISTRY)


CHECKS: Final = create_counter("watch_looks_total", "Checks of the monitor that read both topics to their ends.")
RECORDS: Final = create_counter("watch_records_total", "Records read by the monitor, by topic.", "topic")
LEFT_OUT: Final = create_counter("watch_left_out_total", "Records that the monitor could not use, by reason.", "reason")
RETRIES: Final = create_counter("watch_retries_total", "Checks that failed because Kafka was unavailable.")
FEEDBACK_TIME: Final = create_gauge("watch_time_seconds", "Event time at which the latest label became known.")
USER_SHARE: Final = create_gauge("watch_people_share", "Share of users whose examples are kept, by graph.", "graph")
LIVE_METRIC: Final = create_gauge(
    "live_figure", "Quality metric of a served model on matured labels.", "task", "version", "figure"
)
GAIN_LOST: Final = create_gauge(
    "live_gain_lost", "Gain that the serving model loses against its parent on the rows it served.", "question"
)
ROLLBACKS: Final = create_counter("rollbacks_total", "Bundles rolled back because they were worse than their parent.")
LEARNER_FROZEN: Final = create_gauge("learner_frozen", "1 while the learner is frozen after rejected updates.")
DRIFT_BLOCKS: Final = create_counter("drift_blocks_total", "Blocks of rows compared with the drift reference.", "kind")
DRIFT_ALARMS: Final = create_counter("drift_alarms_total", "Drift alarms, by kind of row and column.", "kind", "column")


class MetricsServer:
    """Serves the metrics over HTTP on `port`, or the next free one, until closed (0: any); raises `BadConfig`."""

    def __init__(self, *, port: int) -> None:
        self._server, self._thread = serve_on_free_port(
            "watch.http_port", port, lambda number: start_http_server(number, registry=REGISTRY)
        )
        self.port = self._server.server_port

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def set_live_metrics(evaluations: dict[str, Evaluation]) -> None:
    """Replace the exported live metrics by these, by version; versions without metrics disappear."""
    LIVE_METRIC.clear()
    for version, evaluation in evaluations.items():
        for task, figures in evaluation.items():
            for name, value in figures.items():
                LIVE_METRIC.labels(task, version, name).set(value)
