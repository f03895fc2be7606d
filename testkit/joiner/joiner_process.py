"""The processes `python -m worker feedback` of a run: killed, suspended in a step, restarted."""

import os
import re
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

from devservers.process import ChildProcess, find_free_ports
from testkit.checkout import CHECKOUT_VARIABLES
from testkit.environment.run_environment import KafkaServer
from testkit.joiner.expected import FEEDBACK_SETTINGS, KINDS
from worker.ops.steps import STEPS

OUTPUT_KINDS: Final = ("feedback", "judgements")
RUN_TIMEOUT_S: Final = 600.0
POLL_S: Final = 0.05
STEP_POLL_S: Final = 0.0002
STEP_TIMEOUT_S: Final = 20.0
NO_OVERRIDES: Final[Mapping[str, str]] = MappingProxyType({})


class JoinerProcess:
    """One joiner on the topics of a run, restarted after each kill."""

    def __init__(
        self,
        *,
        kafka: KafkaServer,
        prefix: str,
        folder: Path,
        instance: str = "0",
        overrides: Mapping[str, str] = NO_OVERRIDES,
    ) -> None:
        """`overrides`: further environment variables."""
        (self._port,) = find_free_ports(1)
        self._step_path = folder / f"joiner-{instance}.step"
        self._step_path.write_bytes(b"\0")
        self.child = ChildProcess(
            command=[sys.executable, "-m", "worker", "feedback"],
            output=folder / f"joiner-{instance}.log",
            environment={**self._env_variables(kafka, prefix, instance, folder), **overrides},
        )

    def read_metrics(self, *names: str) -> list[float]:
        """The sum of each metric's series; zeros while the joiner does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=1) as answer:
                text = answer.read().decode()
        except OSError:
            return [0.0] * len(names)
        return [
            sum(map(float, re.findall(rf"^shopstream_{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))) for name in names
        ]

    def pause_in(self, step: str) -> str:
        """Suspend it in this step, or in any one if it does not come in time; returns the step that it is in."""
        deadline = time.monotonic() + STEP_TIMEOUT_S
        with self._step_path.open("rb") as file:
            while read_step(file.fileno()) != step and time.monotonic() < deadline:
                time.sleep(STEP_POLL_S)
            self.child.pause()
            return read_step(file.fileno())

    def _env_variables(self, kafka: KafkaServer, prefix: str, instance: str, folder: Path) -> Mapping[str, str]:
        # A partition that only waits for a slow machine should not count as idle.
        # Few rows fit in memory, so that most wait on disk.
        store = {"store": str(folder / f"{prefix}rows"), "save_ms": 300, "rows_max": 2_000}
        feedback = {**FEEDBACK_SETTINGS.model_dump(), "idle_ms": 5_000, **store}
        return {
            **CHECKOUT_VARIABLES,
            "SHOPSTREAM_STEP_FILE": str(self._step_path),
            "SHOPSTREAM_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap,
            "SHOPSTREAM_KAFKA__GROUP_PREFIX": f"{prefix}join",
            "SHOPSTREAM_KAFKA__SESSION_TIMEOUT_MS": "6000",
            "SHOPSTREAM_WORKER__HTTP_PORT": str(self._port),
            "SHOPSTREAM_WORKER__INSTANCE": instance,
            "SHOPSTREAM_WORKER__BATCH_MAX": "100",  # many transactions to be killed in
            **{f"SHOPSTREAM_TOPICS__{kind.upper()}": f"{prefix}{kind}" for kind in (*KINDS, *OUTPUT_KINDS)},
            **{f"SHOPSTREAM_FEEDBACK__{name.upper()}": str(value) for name, value in feedback.items()},
        }


def read_step(descriptor: int) -> str:
    """The step in a step file; a process that starts has none in it for a moment."""
    return STEPS[(os.pread(descriptor, 1, 0) or b"\0")[0]]


class JoinerGroup:
    """All joiners of a run."""

    def __init__(
        self,
        *,
        kafka: KafkaServer,
        prefix: str,
        folder: Path,
        count: int,
        partitions: int,
        overrides: Mapping[str, str] = NO_OVERRIDES,
    ) -> None:
        self.members = [
            JoinerProcess(kafka=kafka, prefix=prefix, folder=folder, instance=str(number), overrides=overrides)
            for number in range(count)
        ]
        self._partitions = partitions

    def start(self) -> None:
        """Start those that do not run."""
        for member in self.members:
            member.child.start()

    def wait_for_stream_time(self, ms: int) -> None:
        """Return when one joiner has published everything of its shards up to this stream time."""
        self._wait(self.members, lambda: any(ms <= time_s * 1000 for _, time_s in self._read(self.members)))

    def wait_for_end(self, ms: int) -> None:
        """Return when everything up to this stream time is published."""

        def is_done() -> bool:
            states = [state for state in self._read(self.members) if state[0]]
            shards = sum(count for count, _ in states)
            return shards == self._partitions and all(ms <= time_s * 1000 for _, time_s in states)

        self._wait(self.members, is_done)

    def wait_for_takeover(self, away: JoinerProcess) -> None:
        """Return when the other joiners have all shards."""
        others = [member for member in self.members if member is not away]
        self._wait(others, lambda: sum(count for count, _ in self._read(others)) == self._partitions)

    def read_sum(self, name: str) -> int:
        """The sum of a metric over all joiners."""
        return round(sum(member.read_metrics(name)[0] for member in self.members))

    def stop(self) -> None:
        for member in self.members:
            member.child.stop()

    def kill(self) -> None:
        for member in self.members:
            member.child.kill()

    @staticmethod
    def _read(members: Sequence[JoinerProcess]) -> list[tuple[float, float]]:
        """The number of shards and the stream time in seconds, of each."""
        time.sleep(POLL_S)
        states = [member.read_metrics("joiner_shards", "stream_time_seconds") for member in members]
        return [(shards, time_s) for shards, time_s in states]

    @staticmethod
    def _wait(members: Sequence[JoinerProcess], is_reached: Callable[[], bool]) -> None:
        """Wait for a condition; raises `Unavailable` if one of them ends by itself, or after a long time."""
        if ended := [member for member in members if not member.child.is_running]:
            ended[0].child.wait_until(lambda: False, timeout_s=0)
        members[0].child.wait_until(is_reached, timeout_s=RUN_TIMEOUT_S)
