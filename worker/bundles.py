"""Which model serves: watches the pointer and takes up a new bundle between two batches, or says why not."""

import logging
from pathlib import Path

from contract.bundle import current_version, read_bundle
from contract.errors import BadBundle
from contract.features import FeatureSet
from worker import metrics
from worker.runtime import Model

log = logging.getLogger(__name__)


class Bundles:
    """The folder in which bundles appear. One that was refused is not tried again until the pointer moves."""

    def __init__(self, *, folder: Path, features: FeatureSet) -> None:
        self._folder, self._features = folder, features
        self._refused = ""
        self.model: Model | None = None

    def look(self) -> Model | None:
        """A model to take up now, or None: nothing new, or nothing that may serve."""
        version = None
        try:
            version = current_version(self._folder)
            if version is None or version == self._refused or (self.model and version == self.model.version):
                return None
            model = Model(read_bundle(self._folder, version), self._features)
        except BadBundle as error:
            self._refuse(version or "a broken pointer", error)
            return None
        self._refused, self.model = "", model
        return model

    def show(self) -> None:
        """Tell that the present model serves from now on."""
        if self.model:
            metrics.SWAPS.inc()
            metrics.show_model(self.model.version)
            log.info("Serving model %s: %s.", self.model.version, ", ".join(sorted(self.model.tasks)))

    def _refuse(self, what: str, error: BadBundle) -> None:
        if what == self._refused:
            return
        self._refused = what
        metrics.REFUSED.inc()
        present = f"Model {self.model.version} keeps answering" if self.model else "Rules and popular items answer"
        log.error("%s, a bundle was refused: %s", present, error)
