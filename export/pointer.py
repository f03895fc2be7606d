"""Which bundle is present or on trial, which one a command means, and going back to the one before."""

from contextlib import suppress
from pathlib import Path

from contract.bundle import Manifest, current_version, point_to, read_bundle, read_manifest
from contract.errors import BadBundle
from contract.trial import Trial, end_trial, point_to_trial, read_trial


def present(bundles: Path) -> str:
    """The version that workers are pointed to; raises `BadBundle` when there is none."""
    version = current_version(bundles)
    if version is None:
        raise BadBundle(f"{bundles} should have a present bundle. Found none.")
    return version


def locate(bundles: Path, named: str | None) -> tuple[Path, str]:
    """The folder of bundles and the version that a version, a bundle's own folder, or nothing (the present) means."""
    if named is None:
        return bundles, present(bundles)
    folder = Path(named).resolve()
    return (folder.parent, folder.name) if (folder / "manifest.json").exists() else (bundles, named)


def older(bundles: Path, version: str, created_ms: int) -> str | None:
    """Why a bundle made at this time would go back in time; None: it does not, or the present one cannot be read."""
    try:
        now: Manifest = read_manifest(bundles, present(bundles))
    except BadBundle:
        return None
    if created_ms >= now.created_ms:
        return None
    return f"A bundle should be no older than the present one, {now.version}. Found {version}."


def rollback(bundles: Path) -> str:
    """Point to the parent of the present bundle, whose every byte is checked first; raises `BadBundle`.

    Of the present one the manifest alone is read: that it is damaged is a reason to go back.
    """
    version = present(bundles)
    parent = read_manifest(bundles, version).parent
    if parent is None:
        raise BadBundle(f"Bundle {version} should have a parent to go back to. Found none.")
    point_to(bundles, read_bundle(bundles, parent).version)
    return parent


def serve(bundles: Path, version: str) -> str | None:
    """Point to a bundle whose every byte is checked first; its trial ends. Returns the former; raises `BadBundle`."""
    former = current_version(bundles)
    read_bundle(bundles, version)
    with suppress(BadBundle):  # a broken pointer is not of this bundle
        if (trial := read_trial(bundles)) and trial.version == version:
            end_trial(bundles)
    point_to(bundles, version)
    return former


def begin(bundles: Path, trial: Trial) -> str:
    """Put a bundle on trial, its every byte checked first, beside the present one, which is returned.

    Raises `BadBundle`.
    """
    if (now := present(bundles)) == trial.version:
        raise BadBundle(f"A trial should be of another bundle than the present one. Found {now}.")
    read_bundle(bundles, trial.version)
    point_to_trial(bundles, trial)
    return now
