"""Warns where a model was trained with histories of users and Redis has none: scores are then far from the training's.

The first users after each activation are counted, then nothing more, so that batches cost nothing later.
"""

import logging
from collections.abc import Sequence
from typing import Final

import numpy as np

from contract.bundle import Manifest
from contract.profiles.slices import LoadedSlices
from worker.ops import metrics

log = logging.getLogger(__name__)
USERS_MIN: Final = 1_000  # users after whom a model's expectation is judged
SHARE_MIN: Final = 0.25  # of the training's share: chance and new users explain less


class HistoryCheck:
    """Compares the share of users with a profile with that of the serving model's training."""

    def __init__(self) -> None:
        self._version, self._trained = "", 0.0
        self._users = self._found = 0

    def expect(self, manifest: Manifest) -> None:
        """Start the count for a model that has just been activated; one that read no profiles expects nothing."""
        if manifest.version == self._version:
            return
        self._version, self._trained = manifest.version, manifest.profile_share or 0.0
        self._users = self._found = 0

    def observe(self, entities: Sequence[str], slices: object) -> None:
        """Count the users of a batch, until there are enough to judge."""
        if not self._trained or self._users >= USERS_MIN or not isinstance(slices, LoadedSlices):
            return
        is_user = np.fromiter((entity.startswith("user:") for entity in entities), np.bool_, len(entities))
        has_profile = np.zeros(len(entities), np.bool_)
        has_profile[slices.entity] = True
        self._users += int(is_user.sum())
        self._found += int((is_user & has_profile).sum())
        if self._users >= USERS_MIN:
            self._judge()

    def _judge(self) -> None:
        share = self._found / self._users
        metrics.PROFILE_SHARE.labels("found").set(share)
        metrics.PROFILE_SHARE.labels("trained").set(self._trained)
        if share < SHARE_MIN * self._trained:
            log.warning(
                "Model %s was trained with a history in %.0f %% of its rows; Redis has one of %.0f %% of %d users. "
                "Its scores will be worse than its evaluation until profiles are filled from history.",
                self._version,
                100 * self._trained,
                100 * share,
                self._users,
            )
