"""A worker in a process of its own that stops itself (SIGSTOP) at the beginning of one step, as a frozen one does.

`python -m tests.worker.frozen_worker SETTINGS STEP`: settings as JSON. It works on when it gets SIGCONT.
"""

import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from contract.messages import Ranking
from contract.profiles.store import FoldedBatch
from contract.settings.reading import Settings
from contract.settings.servers import TopicSettings
from devservers.process import ChildProcess
from tests.worker.signing_scorer import SigningScorer
from tests.worker.worker_lifecycle import InProcessWorker, StepEvent, WorkerSource
from worker.ops.steps import STEPS
from worker.records.answers import DECISION, RANKING, Answer
from worker.records.batch import Batch
from worker.scoring.results import BatchResults


class RankingScorer(SigningScorer):
    """Answers every order with a decision, which is claimed, and a ranking, which is cached."""

    answer_kinds = (DECISION, RANKING)

    def answer(self, batch: Batch, rows: Sequence[int], memory: FoldedBatch, now_ms: int) -> BatchResults:
        results = super().answer(batch, rows, memory, now_ms)
        results.answers += [self._rank(answer) for answer in results.answers]
        return results

    @staticmethod
    def _rank(decision: Answer) -> Answer:
        row = decision.scored
        ranking = Ranking(
            event_id=row.event_id, user_id=row.user_id, query=row.event_id, items=(), relevance=(), model_version=""
        )
        return Answer(RANKING, row, ranking)


@dataclass(frozen=True)
class FrozenSource:
    """The settings of an environment, in another process."""

    settings: Settings

    @property
    def topics(self) -> TopicSettings:
        return self.settings.topics

    def settings_for(self, instance: str) -> Settings:
        return self.settings


class FrozenWorker(ChildProcess):
    """The process; `settings` are those of its instance."""

    def __init__(self, settings: Settings, step: str, folder: Path) -> None:
        sections = settings.model_dump_json(include={"kafka", "redis", "topics", "worker"})
        command = [sys.executable, "-m", "tests.worker.frozen_worker", sections, step]
        self._step_file = folder / "frozen.step"
        super().__init__(
            command=command,
            output=folder / "frozen.log",
            environment={"SHOPSTREAM_STEP_FILE": str(self._step_file)},
        )

    @property
    def step(self) -> str:
        """The step that it is in."""
        return STEPS[self._step_file.read_bytes()[0]]

    @property
    def is_frozen(self) -> bool:
        """Whether it has stopped itself."""
        if self.pid is None:
            raise RuntimeError(f"A worker should run until it stops itself. Found:\n{self.tail()}")
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def main(settings: str, step: str) -> None:
    source: WorkerSource = FrozenSource(Settings.model_validate_json(settings))
    freeze = StepEvent(step, 1, lambda: os.kill(os.getpid(), signal.SIGSTOP))
    InProcessWorker(source, step_events=[freeze], scorer=RankingScorer("frozen"), erases=True).run_until(lambda: False)


if __name__ == "__main__":
    main(*sys.argv[1:])
