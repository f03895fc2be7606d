"""Which models answer: watches both pointers, has what they name opened beside the work, or says why not."""

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from contract.bundle import current_version, read_bundle
from contract.errors import BadBundle
from contract.experiment import Trial, read_trial
from contract.features.declaration import FeatureSet
from worker.model.bundle_loader import BundleLoader, trim_heap
from worker.model.experiment import ActiveModels, TrialModel
from worker.model.onnx_model import Model
from worker.ops import metrics

log = logging.getLogger(__name__)
BROKEN_POINTER = "a broken pointer"


class BundleWatcher:
    """The folder in which bundles appear, and the line-up of those that answer; whatever is wrong leaves it as it is.

    A thread opens bundles, one at a time, so that no batch waits for it.
    """

    def __init__(self, *, folder: Path, features: FeatureSet) -> None:
        self._folder, self._features = folder, features
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="bundles")
        self._serving_loader, self._trial_loader = BundleLoader(self._load), BundleLoader(self._load)
        self.active = self._announced = ActiveModels()

    @property
    def serving(self) -> Model | None:
        """The one that serves."""
        return self.active.serving

    @property
    def has_loaded(self) -> bool:
        """Whether a look would find what has just been opened."""
        return self._serving_loader.is_done or self._trial_loader.is_done

    def poll(self, *, wait: bool = False) -> ActiveModels | None:
        """A line-up to take up now, or None: nothing new, nothing that may answer, or not opened yet.

        `waits`: until what is pointed to is opened or refused.
        """
        serving = self._poll_serving(wait) or self.active.serving
        active = ActiveModels(serving, self._poll_trial(serving, wait))
        if active == self.active:
            return None
        self.active = active
        return active

    def mark_active(self) -> None:
        """Tell that the present line-up answers from now on."""
        serving, trial_model = self.active
        if serving and serving is not self._announced.serving:
            metrics.BUNDLE_SWAPS.inc()
            metrics.set_serving_model(serving.version)
            log.info("Serving model %s: %s.", serving.version, ", ".join(sorted(serving.tasks)))
        if trial_model is not self._announced.trial_model:
            metrics.set_trial_model(*((trial_model.version, trial_model.trial.share) if trial_model else ("", 0.0)))
            log.info("%s.", f"On trial: {trial_model}" if trial_model else "Nothing is on trial any more")
        self._announced = self.active
        self._executor.submit(trim_heap)

    def close(self) -> None:
        """What is being opened is waited for and left."""
        self._executor.shutdown(cancel_futures=True)

    def _poll_serving(self, wait: bool) -> Model | None:
        version = None
        try:
            version = current_version(self._folder)
            return self._serving_loader.poll(version, self._loaded_models(), wait=wait) if version else None
        except BadBundle as error:
            consequence = (
                f"Model {self.serving.version} keeps answering" if self.serving else "Rules and popular items answer"
            )
            self._serving_loader.reject(version or BROKEN_POINTER, f"{consequence}, a bundle was refused: {error}")
            return None

    def _poll_trial(self, serving: Model | None, wait: bool) -> TrialModel | None:
        """The one on trial; a former one stays while the next is being opened, and goes if that is refused."""
        try:
            trial = read_trial(self._folder)
        except BadBundle as error:
            self._trial_loader.reject(BROKEN_POINTER, f"Nothing is on trial: {error}")
            return None
        if trial is None:
            self._trial_loader.clear_rejection()
            return None
        if serving is None or trial.version == serving.version:
            serving_version = serving.version if serving else "no model"
            self._trial_loader.reject(
                f"{trial.version} beside {serving_version}",
                f"Nothing is on trial: a trial should be of another bundle than serves. Found {trial.version} beside "
                f"{serving_version}.",
            )
            return None
        return self._load_trial(trial, wait)

    def _load_trial(self, trial: Trial, wait: bool) -> TrialModel | None:
        present = self.active.trial_model
        try:
            model = self._trial_loader.poll(trial.version, self._loaded_models(), wait=wait)
        except BadBundle as error:
            self._trial_loader.reject(trial.version, f"Nothing is on trial: a bundle was refused: {error}")
        if self._trial_loader.is_rejected:
            return None
        if model is None or (present and present.model is model and present.trial == trial):
            return present
        return TrialModel(model, trial)

    def _loaded_models(self) -> list[Model]:
        """What is open already: a model that was on trial need not be opened again to serve."""
        return [model for model in self.active.models if model]

    def _load(self, version: str) -> Future[Model]:
        return self._executor.submit(lambda: Model(read_bundle(self._folder, version), self._features))
