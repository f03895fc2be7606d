"""What the worker's own thread tells the threads that watch it. Nothing here waits, takes a lock or asks a server."""

import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

from transport.records import TopicPartition

ROOT: Final = Path(__file__).parents[2]
Positions = Mapping[TopicPartition, int]
NO_POSITIONS: Final[Positions] = MappingProxyType({})


class Pause(NamedTuple):
    """For which partition another one waits (None: for topics that can be joined), and whether that is at its end."""

    slowest: TopicPartition | None = None
    is_at_end: bool = False


Pauses = Mapping[TopicPartition, Pause]
NO_PAUSES: Final[Pauses] = MappingProxyType({})


class Snapshot(NamedTuple):
    """Partitions of the group as of `at_s` (monotonic): up to where they are done, and their ends as far as known.

    `folded`: how far profiles are folded, which advances alone after a loss of state. `recoveries`: how often the
    worker has recovered its state so far. `missing`: partitions that the group assigns to it, and that do not exist.
    `paused`: partitions that the worker does not read for now.
    """

    at_s: float
    positions: Positions
    ends: Positions
    folded: Positions
    recoveries: int
    missing: Set[TopicPartition]
    paused: Pauses


@dataclass(slots=True)
class Progress:
    """The latest snapshot of the thread that created this object.

    `followed`: the positions in topics that are read outside the group; called from other threads. `step`: names what
    the thread does now. `denial`: the error by which Kafka denies the group to this process, if it does.
    """

    followed: Callable[[], Positions] = dict
    step: Callable[[], str] = lambda: ""
    latest: Snapshot | None = None  # replaced as a whole, so that readers need no lock
    worked_s: float = 0.0
    denial: str = ""
    thread_id: int = 0

    def __post_init__(self) -> None:
        self.thread_id = threading.get_ident()

    def publish(
        self,
        positions: Positions,
        ends: Positions,
        folded: Positions = NO_POSITIONS,
        recoveries: int = 0,
        missing: Set[TopicPartition] = frozenset(),
        paused: Pauses = NO_PAUSES,
    ) -> None:
        """Replace the snapshot, at least once in a few seconds."""
        self.latest = Snapshot(time.monotonic(), positions, ends, folded, recoveries, missing, paused)

    def touch(self) -> None:
        """The thread advances in something that takes longer than a batch, such as loading a topic."""
        self.worked_s = time.monotonic()

    def locate(self) -> str:
        """The line of this project that the thread executes, as `FILE:LINE in FUNCTION`."""
        frame = sys._current_frames().get(self.thread_id)
        for line in reversed(traceback.extract_stack(frame) if frame else []):
            path = Path(line.filename)
            if path.is_relative_to(ROOT) and ".venv" not in path.parts:
                return f"{path.relative_to(ROOT)}:{line.lineno} in {line.name}"
        return "unknown code"
