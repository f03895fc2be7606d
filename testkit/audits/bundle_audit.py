"""Told of published bundles and scored rows, asked at the end for rows of no whole bundle, and for half bundles."""

import json
from collections.abc import Mapping
from math import exp
from pathlib import Path

from contract.bundle import current_version, read_bundle
from contract.errors import BadBundle
from contract.messages import ScoredRow

DIFFERENCE_MAX = 1e-4
LOGIT_MAX = 80.0


class BundleAudit:
    """`thresholds`: by version, of the tiny bundles that were published. Each row should have its version's score."""

    def __init__(self, thresholds: Mapping[str, float]) -> None:
        self.wrong_scores: list[str] = []
        self._thresholds = thresholds

    def record_order(self, row: ScoredRow, order: bytes) -> None:
        """An order was scored."""
        if row.model_version == "":
            return  # by rules alone
        threshold = self._thresholds.get(row.model_version)
        if threshold is None:
            self.wrong_scores.append(f"order {row.event_id} has the version {row.model_version}, which does not exist")
            return
        logit = min(LOGIT_MAX, max(-LOGIT_MAX, json.loads(order)["amount"] - threshold))
        expected, actual = 1 / (1 + exp(-logit)), row.scores["fraud"][0]
        if abs(expected - actual) > DIFFERENCE_MAX:
            self.wrong_scores.append(
                f"order {row.event_id} of {row.model_version} should have {expected}, has {actual}"
            )

    def find_half_bundles(self, folder: Path) -> list[str]:
        """Bundles and pointers that are visible and not whole."""
        broken = []
        try:
            versions = {path.name for path in folder.glob("*") if path.is_dir() and not path.name.startswith(".")}
            if (current := current_version(folder)) is not None:
                versions.add(current)
        except BadBundle as error:
            return [str(error)]
        for version in versions:
            try:
                read_bundle(folder, version)
            except BadBundle as error:
                broken.append(str(error))
        return broken
