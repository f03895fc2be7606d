"""A worker is killed while it has a batch, however late the killer gets its turn."""

from collections.abc import Iterator
from typing import Any

import pytest

from testkit.kills import killed_process
from testkit.kills.killed_process import STEPS_WITH_BATCH, Killer
from worker.ops.steps import Step


class SteppingChild:
    """A worker that goes on by one step each time it is looked at, unless it is suspended."""

    is_running = True

    def __init__(self) -> None:
        self.is_paused = False

    def resume(self) -> None:
        self.is_paused = False


class SteppingProcess:
    """A lane's worker that is idle again when it is suspended, the first `misses` times."""

    lane = "orders"

    def __init__(self, misses: int) -> None:
        self.child = SteppingChild()
        self._steps, self._misses, self._step = iter_steps(), misses, Step.IDLE

    @property
    def step(self) -> str:
        if not self.child.is_paused:
            self._step = next(self._steps)
        return self._step

    def start(self) -> None:
        self.child.is_paused = False

    def freeze(self) -> str:
        self.child.is_paused = True
        if self._misses:
            self._misses, self._step = self._misses - 1, Step.IDLE
        return self._step

    def kill(self) -> str:
        return self.step


def iter_steps() -> Iterator[Step]:
    while True:
        yield from (Step.IDLE, Step.READ, Step.SCORE, Step.MERGE, Step.IDLE, Step.IDLE)


class SilentProducer:
    total = 0

    def send(self, count: int) -> None:
        """Nothing: the worker has its own batches."""


@pytest.mark.parametrize("misses", [0, 1, 5])
def test_a_kill_waits_until_the_suspended_worker_has_a_batch(misses: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(killed_process, "TARGET_STEPS", {"orders": ("merge", "read")})
    monkeypatch.setattr(killed_process, "TARGET_TIMEOUT_S", 0.05)
    process: Any = SteppingProcess(misses)
    producer: Any = SilentProducer()
    killed = Killer(process=process, producer=producer, kills=8, seed=misses).run(lambda line: None)
    assert killed.total() == 8
    assert set(killed) <= set(STEPS_WITH_BATCH)
