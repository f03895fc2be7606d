"""Watches the pointers to the serving and the trial bundle, loads what they name in a thread, and reports why not.

onnxruntime, hashing and unpacking release the GIL, so batches go on while a bundle is loaded.
"""

import ctypes
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from contract.bundle import read_bundle
from contract.errors import BadBundle
from contract.experiment import Trial
from contract.features.declaration import FeatureSet
from contract.graphs import RECOMMEND
from contract.object_folder import Folder
from worker.model.experiment import ActiveModels, TrialModel
from worker.model.onnx_model import Model
from worker.model.pointers import Pointers
from worker.ops import metrics

log = logging.getLogger(__name__)
BROKEN_POINTER = "a broken pointer"
REMINDER_S: Final = 60.0  # between two warnings that no model answers


class BundleWatcher:
    """Watches the folder of bundles, on a disk or in an object store; any error leaves the active models as they are.

    A thread loads bundles, one at a time, so that no batch waits for it.
    """

    def __init__(
        self,
        *,
        folder: Folder,
        features: FeatureSet,
        graphs: Sequence[str] = (),
        index_from_items: int = 0,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`graphs`: those without which the lane's answers are degraded. `index_from_items`: 0 for no index."""
        self._folder, self._graphs = folder, graphs
        self._pointers = Pointers(folder)
        self._clock_s = clock_s
        self._reminder_due_s = -1.0
        self._features, self._index_from_items = features, index_from_items
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="bundles")
        self._serving_loader = BundleLoader(self._load)
        self._trial_loader = BundleLoader(self._load)
        self.active = self._announced = ActiveModels()

    @property
    def serving(self) -> Model | None:
        return self.active.serving

    @property
    def has_loaded(self) -> bool:
        """Whether `poll` would return a model that has just been loaded."""
        return self._serving_loader.is_done or self._trial_loader.is_done

    def poll(self, *, wait: bool = False) -> ActiveModels | None:
        """The models to activate now; None if there are no new ones, or they are rejected or still loading.

        `wait`: block until the bundles that the pointers name are loaded or rejected.
        """
        serving = self._poll_serving(wait) or self.active.serving
        self._remind_of_degradation(serving)
        active = ActiveModels(serving, self._poll_trial(serving, wait))
        if active == self.active:
            return None
        self.active = active
        return active

    def mark_active(self) -> None:
        """Log and count that the active models answer from now on."""
        serving, trial_model = self.active
        if serving and serving is not self._announced.serving:
            metrics.BUNDLE_SWAPS.inc()
            metrics.set_serving_model(serving.version)
            log.info("Serving model %s: %s.", serving.version, ", ".join(sorted(serving.tasks)))
        if trial_model is not self._announced.trial_model:
            announce_trial(trial_model)
        self._announced = self.active
        self._executor.submit(trim_heap)

    def close(self) -> None:
        """Wait for the bundle that is being loaded, and drop it."""
        self._executor.shutdown(cancel_futures=True)
        self._pointers.close()

    def _remind_of_degradation(self, serving: Model | None) -> None:
        """Warn at once, and then once in `REMINDER_S`, that no model answers, or none for this lane."""
        if (now_s := self._clock_s()) < self._reminder_due_s:
            return
        if reason := self._explain_degradation(serving):
            self._reminder_due_s = now_s + REMINDER_S
            log.warning("%s Until then rules and popular items answer, marked `degraded`.", reason)

    def _explain_degradation(self, serving: Model | None) -> str:
        """Why answers are degraded; empty where they are not, and while a bundle is loading."""
        if serving is None:
            return self._pointers.explain_absence() or self._serving_loader.rejection
        missing = [
            graph
            for graph in self._graphs
            if not serving.has_graph(graph) and not (graph == RECOMMEND.name and serving.next_item)
        ]
        if not missing:
            return ""
        return (
            f"Bundle {serving.version} should have the graph {', '.join(missing)}, which this lane answers by. Found "
            "none: declare a task of it in `[[tasks]]`, fit and export."
        )

    def _poll_serving(self, wait: bool) -> Model | None:
        version = None
        try:
            version = self._pointers.read_version(wait=wait)
            return self._serving_loader.poll(version, self._list_loaded_models(), wait=wait) if version else None
        except BadBundle as error:
            consequence = (
                f"Model {self.serving.version} keeps answering" if self.serving else "Rules and popular items answer"
            )
            rejected = f"Bundle {version}" if version else "The pointer to the bundle"
            self._serving_loader.reject(
                version or BROKEN_POINTER, f"{rejected} was rejected: {error}", f" {consequence}."
            )
            return None

    def _poll_trial(self, serving: Model | None, wait: bool) -> TrialModel | None:
        """The trial model; the present one stays while the next is loaded, and ends if that is rejected."""
        try:
            trial = self._pointers.read_trial()
        except BadBundle as error:
            self._trial_loader.reject(BROKEN_POINTER, f"No trial is active: {error}")
            return None
        if trial is None:
            self._trial_loader.clear_rejection()
            return None
        if serving is None or trial.version == serving.version:
            serving_version = serving.version if serving else "no model"
            self._trial_loader.reject(
                f"{trial.version} with {serving_version}",
                "No trial is active: a trial should have another bundle than the serving one. "
                f"Found {trial.version} with {serving_version} serving.",
            )
            return None
        return self._load_trial(trial, wait)

    def _load_trial(self, trial: Trial, wait: bool) -> TrialModel | None:
        present = self.active.trial_model
        try:
            model = self._trial_loader.poll(trial.version, self._list_loaded_models(), wait=wait)
        except BadBundle as error:
            self._trial_loader.reject(trial.version, f"No trial is active: its bundle was rejected: {error}")
        if self._trial_loader.is_rejected:
            return None
        if model is None or (present and present.model is model and present.trial == trial):
            return present
        return TrialModel(model, trial)

    def _list_loaded_models(self) -> list[Model]:
        """The models in memory: a trial model that is promoted is not loaded again."""
        return [model for model in self.active.models if model]

    def _load(self, version: str) -> Future[Model]:
        return self._executor.submit(self._load_model, version)

    def _load_model(self, version: str) -> Model:
        model = Model(read_bundle(self._folder, version), self._features)
        if model.next_item and 0 < self._index_from_items <= len(model.next_item.vectors.vectors):
            model.next_item.index_vectors()
        return model


class BundleLoader:
    """Loads the bundle that one pointer names. A rejected bundle is not loaded again until the pointer moves.

    `rejection`: why the bundle that the pointer names was rejected.
    """

    def __init__(self, load: Callable[[str], Future[Model]]) -> None:
        self._load = load
        self._version = ""
        self._future: Future[Model] | None = None
        self._rejected = self.rejection = ""

    @property
    def is_done(self) -> bool:
        """Whether `poll` would return a model or raise the reason to reject it."""
        return self._future is not None and self._future.done()

    @property
    def is_rejected(self) -> bool:
        """Whether the bundle that the pointer names was rejected."""
        return bool(self._rejected)

    def poll(self, version: str, loaded: Iterable[Model], *, wait: bool) -> Model | None:
        """The model of this version; None while it is loading, and if it was rejected before.

        `loaded`: models that are in memory already. Raises `BadBundle`, once.
        """
        if version == self._rejected:
            return None
        self._rejected = self.rejection = ""
        for model in loaded:
            if model.version == version:
                return model
        if self._future is None or self._version != version:
            self._version = version
            self._future = self._load(version)
        if not wait and not self._future.done():
            return None
        future = self._future
        self._future = None
        return future.result()

    def reject(self, name: str, reason: str, consequence: str = "") -> None:
        """Count and log a rejection, once for each name."""
        if name != self._rejected:
            self._rejected, self.rejection = name, reason
            metrics.BUNDLES_REFUSED.inc()
            log.error("%s%s", reason, consequence)

    def clear_rejection(self) -> None:
        """Load whatever the pointer names next; called while there is no pointer."""
        self._rejected = self.rejection = ""


def announce_trial(trial_model: TrialModel | None) -> None:
    if trial_model is None:
        metrics.set_trial_model("", 0.0)
        log.info("Trial ended.")
    else:
        metrics.set_trial_model(trial_model.version, trial_model.trial.share)
        log.info("Trial active: %s.", trial_model)


def trim_heap() -> None:
    """Return the memory of former models to the system: glibc keeps freed memory between blocks in use."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
