"""Releases: the current bundle, the trial, and rollback; and the bundle that a command's argument names."""

from contextlib import suppress
from pathlib import Path

from contract.bundle import Manifest, current_version, read_bundle, read_manifest, set_current
from contract.errors import BadBundle
from contract.experiment import Trial, end_trial, read_trial, set_trial
from contract.object_folder import Folder, open_folder


def require_current(bundles: Folder) -> str:
    """The current version; raises `BadBundle` if there is none."""
    version = current_version(bundles)
    if version is None:
        raise BadBundle(f"{bundles} should have a current bundle. Found none.")
    return version


def locate_bundle(bundles: Folder, name: str | None) -> tuple[Folder, str]:
    """The folder of bundles and the version named by a version, by a bundle's own folder, or by None (the current)."""
    if name is None:
        return bundles, require_current(bundles)
    if "://" in name:
        location, _, version = name.rstrip("/").rpartition("/")
        return open_folder(location), version
    folder = Path(name).resolve()
    return (folder.parent, folder.name) if (folder / "manifest.json").exists() else (bundles, name)


def explain_if_older(bundles: Folder, version: str, created_ms: int) -> str | None:
    """Why a bundle of this time is older than the current one; None if it is not, or the current one is unreadable."""
    try:
        current: Manifest = read_manifest(bundles, require_current(bundles))
    except BadBundle:
        return None
    if created_ms >= current.created_ms:
        return None
    return f"A bundle should be no older than the current one, {current.version}. Found {version}."


def rollback(bundles: Folder) -> str:
    """Make the parent of the current bundle current, after checking its digests; raises `BadBundle`.

    Of the current bundle only the manifest is read, since damage to it is a reason for a rollback.
    """
    version = require_current(bundles)
    parent = read_manifest(bundles, version).parent
    if parent is None:
        raise BadBundle(f"Bundle {version} should have a parent to roll back to. Found none.")
    set_current(bundles, read_bundle(bundles, parent).version)
    return parent


def serve(bundles: Folder, version: str) -> str | None:
    """Make a bundle current after checking its digests; its trial ends. Returns the previous; raises `BadBundle`."""
    previous = current_version(bundles)
    read_bundle(bundles, version)
    with suppress(BadBundle):  # a broken pointer names no bundle
        if (trial := read_trial(bundles)) and trial.version == version:
            end_trial(bundles)
    set_current(bundles, version)
    return previous


def start_trial(bundles: Folder, trial: Trial) -> str:
    """Start the trial of a bundle after checking its digests; returns the current one. Raises `BadBundle`."""
    if (current := require_current(bundles)) == trial.version:
        raise BadBundle(f"A trial should be of another bundle than the current one. Found {current}.")
    read_bundle(bundles, trial.version)
    set_trial(bundles, trial)
    return current
