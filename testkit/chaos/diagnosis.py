"""What a run that stands still says: for what each process waits, and the stacks of all threads."""

from collections.abc import Iterator
from typing import Final

from testkit.chaos.fleet import Fleet, FleetProcess

METRICS: Final = (
    "shopstream_waiting",
    "shopstream_lag_records",
    "shopstream_recoveries_total",
    "shopstream_erasures_pending",
    "shopstream_stream_time_seconds",
    "shopstream_oldest_open_seconds",
    "shopstream_orphan_labels",
)
LOG_LINES: Final = 12


def describe_processes(fleet: Fleet) -> Iterator[str]:
    """Probes, metrics that are not 0, the last lines of the log and the stacks of each process."""
    for process in fleet.processes:
        yield f"--- {process.name}: {describe_state(process)}, in step {process.process.step}"
        yield f"readyz: {process.probe('readyz').strip()}; livez: {process.probe('livez').strip()}"
        yield from (line for line in process.probe("metrics").splitlines() if is_telling(line))
        yield from process.process.child.tail(4_000).splitlines()[-LOG_LINES:]
        yield from process.read_stacks().splitlines()


def describe_state(process: FleetProcess) -> str:
    if not process.is_running:
        return "not running"
    return "frozen" if process.is_frozen else "running"


def is_telling(line: str) -> bool:
    return line.startswith(METRICS) and not line.endswith(" 0.0")
