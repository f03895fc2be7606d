"""Going back to the bundle before the present one."""

from pathlib import Path

from contract.bundle import current_version, point_to, read_bundle
from contract.errors import BadBundle


def present(bundles: Path) -> str:
    """The version that workers are pointed to; raises `BadBundle` when there is none."""
    version = current_version(bundles)
    if version is None:
        raise BadBundle(f"{bundles} should have a present bundle. Found none.")
    return version


def rollback(bundles: Path) -> str:
    """Point to the parent of the present bundle, whose every byte is checked first; raises `BadBundle`."""
    version = present(bundles)
    parent = read_bundle(bundles, version).manifest.parent
    if parent is None:
        raise BadBundle(f"Bundle {version} should have a parent to go back to. Found none.")
    point_to(bundles, read_bundle(bundles, parent).version)
    return parent
