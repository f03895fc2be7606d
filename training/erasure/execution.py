"""Execution of erasures by a process of training: the learner in its checkpoints, the monitor in what it observes."""

from collections.abc import Callable
from typing import TypeAlias

from contract.events.reading import make_readers
from contract.profiles.erasures import Erasures
from contract.settings.reading import Settings
from training.erasure.progress import ErasureProgress
from training.erasure.topic import ErasureTopic

# Removes the people of all erasures; whether nothing of them is left, on the disk either. With False for the second
# argument no erasure is newer than the last call that returned.
EraseFunction: TypeAlias = Callable[[Erasures, bool], bool]


class ErasureExecution:
    """Reads the erasures topic, hands erasures to `erase`, and commits the progress once they are executed."""

    def __init__(self, *, settings: Settings, process: str, erase: EraseFunction) -> None:
        """`process`: `learner` or `monitor`, see `ErasureProgress`."""
        self._topic = ErasureTopic(
            kafka=settings.kafka,
            topic=settings.topics.erasures,
            reader=make_readers(settings.intake)["erasures"],
        )
        self._progress = ErasureProgress(kafka=settings.kafka, process=process)
        self._erase = erase
        self._has_new = True

    @property
    def erasures(self) -> Erasures:
        """Those that `apply` has read so far; always the same object."""
        return self._topic.erasures

    def apply(self) -> None:
        """Execute all erasures on the topic; raises `Unavailable`, and what `erase` raises.

        Where something is left, only the progress is held back.
        """
        self._has_new |= self._topic.poll()
        is_complete = self._erase(self.erasures, self._has_new)
        self._has_new = False
        if is_complete:
            self._progress.commit(self._topic.offsets)

    def close(self) -> None:
        self._topic.close()
