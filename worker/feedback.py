"""`python -m worker feedback`: the joiner as a process."""

import logging
import threading
import time
from typing import Final

from contract.settings import Settings
from worker import metrics
from worker.health import HealthServer
from worker.intake import Intake
from worker.joining import Joining
from worker.patience import Patience, Stopped
from worker.progress import Progress
from worker.publisher import Publisher
from worker.step import StepMark

log = logging.getLogger(__name__)
HOUSEKEEPING_S: Final = 1.0


class FeedbackWorker:
    """Joins until `stop` is set. One process does it for a shop: its topics are joined in memory."""

    def __init__(self, *, settings: Settings, stop: threading.Event) -> None:
        self._settings, self._stop = settings, stop
        self._progress = Progress(settings.worker.stall_s)
        self._unready: str | None = "Kafka has not given this joiner its partitions yet."

    def run(self) -> None:
        """Work until asked to end; whatever ends it otherwise is raised."""
        worker = self._settings.worker
        health = HealthServer(port=worker.http_port, live=self._live, ready=self._is_ready, metrics=metrics.render)
        log.info("Joiner, instance %s: health and metrics on port %d.", worker.instance, health.port)
        try:
            joining = self._open()
            try:
                self._work(joining)
            finally:
                joining.close()
        except Stopped as stopped:
            log.info("Ending before the batch in hand was committed; it will be read again. %s", stopped)
        finally:
            health.close()

    def _open(self) -> Joining:
        kafka, patience = self._settings.kafka, Patience(self._stop)
        intake = Intake(kafka=kafka, group=kafka.group("feedback"), instance=self._settings.worker.instance)
        # Every joiner of a shop writes under one name, so that whoever takes over ends what the one before had begun.
        transactional = kafka.group("feedback") if kafka.transactions else None
        publisher = Publisher(kafka=kafka, transactional_id=transactional, patience=patience, step=StepMark())
        joining = Joining(settings=self._settings, intake=intake, publisher=publisher, patience=patience)
        intake.subscribe(joining.topics, joining)
        return joining

    def _work(self, joining: Joining) -> None:
        """Batch after batch; once a second what concerns no single one."""
        due_s = 0.0
        while not self._stop.is_set():
            joining.step()
            if (now_s := time.monotonic()) >= due_s:
                due_s = now_s + HOUSEKEEPING_S
                self._progress.note(*joining.reading(), now_s)
                self._note_readiness(joining.unready())
        log.info("Asked to end; everything read is joined, and what is open will be read again.")

    def _note_readiness(self, unready: str | None) -> None:
        if unready and unready != self._unready:
            log.warning("Not ready: %s", unready)
        self._unready = unready

    def _live(self) -> str | None:
        return self._progress.stalled

    def _is_ready(self) -> str | None:
        return self._unready
