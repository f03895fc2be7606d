"""Erasure by the learner: in every checkpoint of its folder of bundles, and in the feedback that it reads."""

from pathlib import Path

from contract.profiles.erasures import Erasures
from contract.settings.reading import Settings
from training.erasure.checkpoints import CheckpointEraser
from training.erasure.progress import ErasureProgress
from training.erasure.topic import ErasureTopic


class LearnerErasures:
    """Carries erasures out and commits the progress; its `erasures` are those that `apply` has read so far."""

    def __init__(self, *, settings: Settings, bundles: Path) -> None:
        self._topic = ErasureTopic(kafka=settings.kafka, topic=settings.topics.erasures)
        self._eraser = CheckpointEraser(bundles=bundles)
        self._progress = ErasureProgress(kafka=settings.kafka, process="learner")
        self._has_new = True

    @property
    def erasures(self) -> Erasures:
        return self._topic.erasures

    def apply(self) -> None:
        """Carry out all erasures on the topic; raises `Unavailable` or `BadBundle`.

        A file that cannot be read holds the progress back, and nothing else.
        """
        self._has_new |= self._topic.poll()
        is_complete = self._eraser.erase(self.erasures, has_new=self._has_new)
        self._has_new = False
        if is_complete:
            self._progress.commit(self._topic.offsets)

    def close(self) -> None:
        self._topic.close()
