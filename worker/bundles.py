"""Which models answer: watches both pointers, has what they name opened beside the work, or says why not."""

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from contract.bundle import current_version, read_bundle
from contract.errors import BadBundle
from contract.features import FeatureSet
from contract.trial import Trial, read_trial
from worker import metrics
from worker.challenger import Challenger, Lineup
from worker.opening import Opening, give_back_memory
from worker.runtime import Model

log = logging.getLogger(__name__)
BROKEN = "a broken pointer"


class Bundles:
    """The folder in which bundles appear, and the line-up of those that answer; whatever is wrong leaves it as it is.

    A thread opens bundles, one at a time, so that no batch waits for it.
    """

    def __init__(self, *, folder: Path, features: FeatureSet) -> None:
        self._folder, self._features = folder, features
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="bundles")
        self._current, self._trial = Opening(self._open), Opening(self._open)
        self.lineup = self._shown = Lineup()

    @property
    def model(self) -> Model | None:
        """The one that serves."""
        return self.lineup.model

    @property
    def opened(self) -> bool:
        """Whether a look would find what has just been opened."""
        return self._current.done or self._trial.done

    def look(self, *, waits: bool = False) -> Lineup | None:
        """A line-up to take up now, or None: nothing new, nothing that may answer, or not opened yet.

        `waits`: until what is pointed to is opened or refused.
        """
        model = self._look_for_model(waits) or self.lineup.model
        lineup = Lineup(model, self._look_for_challenger(model, waits))
        if lineup == self.lineup:
            return None
        self.lineup = lineup
        return lineup

    def show(self) -> None:
        """Tell that the present line-up answers from now on."""
        model, challenger = self.lineup
        if model and model is not self._shown.model:
            metrics.SWAPS.inc()
            metrics.show_model(model.version)
            log.info("Serving model %s: %s.", model.version, ", ".join(sorted(model.tasks)))
        if challenger is not self._shown.challenger:
            metrics.show_trial(*((challenger.version, challenger.trial.share) if challenger else ("", 0.0)))
            log.info("%s.", f"On trial: {challenger}" if challenger else "Nothing is on trial any more")
        self._shown = self.lineup
        self._thread.submit(give_back_memory)

    def close(self) -> None:
        """What is being opened is waited for and left."""
        self._thread.shutdown(cancel_futures=True)

    def _look_for_model(self, waits: bool) -> Model | None:
        version = None
        try:
            version = current_version(self._folder)
            return self._current.take(version, self._known(), waits=waits) if version else None
        except BadBundle as error:
            present = f"Model {self.model.version} keeps answering" if self.model else "Rules and popular items answer"
            self._current.refuse(version or BROKEN, f"{present}, a bundle was refused: {error}")
            return None

    def _look_for_challenger(self, model: Model | None, waits: bool) -> Challenger | None:
        """The one on trial; a former one stays while the next is being opened, and goes if that is refused."""
        try:
            trial = read_trial(self._folder)
        except BadBundle as error:
            self._trial.refuse(BROKEN, f"Nothing is on trial: {error}")
            return None
        if trial is None:
            self._trial.forget()
            return None
        if model is None or trial.version == model.version:
            beside = model.version if model else "no model"
            self._trial.refuse(
                f"{trial.version} beside {beside}",
                f"Nothing is on trial: a trial should be of another bundle than serves. Found {trial.version} beside "
                f"{beside}.",
            )
            return None
        return self._challenger(trial, waits)

    def _challenger(self, trial: Trial, waits: bool) -> Challenger | None:
        present = self.lineup.challenger
        try:
            found = self._trial.take(trial.version, self._known(), waits=waits)
        except BadBundle as error:
            self._trial.refuse(trial.version, f"Nothing is on trial: a bundle was refused: {error}")
        if self._trial.refused:
            return None
        if found is None or (present and present.model is found and present.trial == trial):
            return present
        return Challenger(found, trial)

    def _known(self) -> list[Model]:
        """What is open already: a model that was on trial need not be opened again to serve."""
        return [model for model in self.lineup.models if model]

    def _open(self, version: str) -> Future[Model]:
        return self._thread.submit(lambda: Model(read_bundle(self._folder, version), self._features))
