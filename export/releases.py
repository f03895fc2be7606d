"""Which bundle is present or on trial, which one a command means, and going back to the one before."""

from contextlib import suppress
from pathlib import Path

from contract.bundle import Manifest, current_version, read_bundle, read_manifest, set_current
from contract.errors import BadBundle
from contract.experiment import Trial, end_trial, read_trial, set_trial


def require_current(bundles: Path) -> str:
    """The version that workers are pointed to; raises `BadBundle` when there is none."""
    version = current_version(bundles)
    if version is None:
        raise BadBundle(f"{bundles} should have a present bundle. Found none.")
    return version


def locate_bundle(bundles: Path, name: str | None) -> tuple[Path, str]:
    """The folder of bundles and the version that a version, a bundle's own folder, or nothing (the present) means."""
    if name is None:
        return bundles, require_current(bundles)
    folder = Path(name).resolve()
    return (folder.parent, folder.name) if (folder / "manifest.json").exists() else (bundles, name)


def explain_if_older(bundles: Path, version: str, created_ms: int) -> str | None:
    """Why a bundle made at this time would go back in time; None: it does not, or the present one cannot be read."""
    try:
        current: Manifest = read_manifest(bundles, require_current(bundles))
    except BadBundle:
        return None
    if created_ms >= current.created_ms:
        return None
    return f"A bundle should be no older than the present one, {current.version}. Found {version}."


def rollback(bundles: Path) -> str:
    """Point to the parent of the present bundle, whose every byte is checked first; raises `BadBundle`.

    Of the present one the manifest alone is read: that it is damaged is a reason to go back.
    """
    version = require_current(bundles)
    parent = read_manifest(bundles, version).parent
    if parent is None:
        raise BadBundle(f"Bundle {version} should have a parent to go back to. Found none.")
    set_current(bundles, read_bundle(bundles, parent).version)
    return parent


def serve(bundles: Path, version: str) -> str | None:
    """Point to a bundle whose every byte is checked first; its trial ends. Returns the former; raises `BadBundle`."""
    former = current_version(bundles)
    read_bundle(bundles, version)
    with suppress(BadBundle):  # a broken pointer is not of this bundle
        if (trial := read_trial(bundles)) and trial.version == version:
            end_trial(bundles)
    set_current(bundles, version)
    return former


def start_trial(bundles: Path, trial: Trial) -> str:
    """Put a bundle on trial, its every byte checked first, beside the present one, which is returned.

    Raises `BadBundle`.
    """
    if (current := require_current(bundles)) == trial.version:
        raise BadBundle(f"A trial should be of another bundle than the present one. Found {current}.")
    read_bundle(bundles, trial.version)
    set_trial(bundles, trial)
    return current
