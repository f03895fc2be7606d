"""Experiments: users are assigned by a hash. A trial: a second bundle in addition to the serving one, by `trial.json`.

    BUNDLES/trial.json             {"version": ..., "share": ...}, replaced atomically

A share of 0 is a shadow: the bundle scores the rows that the serving one answers, and its scores are only logged. A
share above 0 is a canary: this share of users gets its answers, the same users in both lanes and on every worker.

A canary is an experiment with the bundle's version as its name. Experiments with list settings are in `shop.toml`.
"""

import json
from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

from contract.bundle import fsync_folder, replace_durably
from contract.errors import BadBundle
from contract.hashing import hash_fraction
from contract.object_folder import Folder

POINTER_FILE = "trial.json"
Arm: TypeAlias = Literal["control", "variant"]
CONTROL: Final[Arm] = "control"
VARIANT: Final[Arm] = "variant"


def assign_arm(experiment: str, share: float, user_id: str) -> Arm:
    """The arm of a user; those of a small share keep theirs in every larger one.

    The experiment salts the hash, so that the arms of two experiments are independent.
    """
    return VARIANT if hash_fraction(user_id, f"experiment {experiment}") < share else CONTROL


class Trial(Struct, frozen=True, kw_only=True):
    """Which bundle is on trial, and the share of users who get its answers."""

    version: Annotated[str, Meta(min_length=1)]
    share: Annotated[float, Meta(ge=0, le=1)] = 0.0

    @property
    def is_shadow(self) -> bool:
        return self.share == 0

    def includes(self, user_id: str) -> bool:
        """Whether this user gets the trial's answers; users of a small share are included in every larger one.

        The version salts the hash, so that the next trial has other users.
        """
        return hash_fraction(user_id, self.version) < self.share


def read_trial(bundles: Folder) -> Trial | None:
    """The active trial, None without one; raises `BadBundle` for a broken pointer."""
    try:
        return msgspec.json.decode((bundles / POINTER_FILE).read_bytes(), type=Trial)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadBundle(f"{POINTER_FILE} should name a version and a share from 0 to 1. Found: {error!r}") from error


def set_trial(bundles: Folder, trial: Trial) -> None:
    """Start a trial, or change its share; readers see the old pointer or the new one. Raises `BadBundle`."""
    replace_durably(bundles / POINTER_FILE, json.dumps({"version": trial.version, "share": trial.share}).encode())


def end_trial(bundles: Folder) -> Trial | None:
    """Remove the pointer, even a broken one; returns the ended trial, None without one. Raises `BadBundle`."""
    try:
        ended = read_trial(bundles)
    except BadBundle:
        ended = None
    try:
        (bundles / POINTER_FILE).unlink(missing_ok=True)
        fsync_folder(bundles)
    except OSError as error:
        raise BadBundle(f"{POINTER_FILE} should be removed. Found: {error}") from error
    return ended
