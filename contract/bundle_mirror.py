"""Keeps the bundles of the learner's folder and of an object store alike, where the settings name a store.

The learner and the monitor work in a folder, which has the checkpoints too; workers read the store. The store's pointer
counts, since `export rollback` and `export serve` move it, unless the folder has a bundle that was never uploaded.
"""

import msgspec

from contract.bundle import current_version, is_complete, read_bundle, set_current, write_folder
from contract.object_folder import Folder, open_folder
from contract.settings.reading import Settings


def open_store(settings: Settings) -> Folder | None:
    """The object store of the settings, if they name one; raises `BadConfig`."""
    return open_folder(settings.bundle_store) if settings.bundle_store else None


def synchronize(folder: Folder, store: Folder) -> None:
    """Upload a serving bundle that the store lacks, or else adopt the store's pointer. Raises `BadBundle`."""
    local, remote = current_version(folder), current_version(store)
    if local == remote:
        return
    if local is not None and (remote is None or not is_complete(store, local)):
        push(folder, store)
    elif remote is not None:
        copy_bundle(store, folder, remote)
        set_current(folder, remote)


def push(folder: Folder, store: Folder) -> None:
    """Make the folder's serving bundle that of the store. Raises `BadBundle`."""
    if (version := current_version(folder)) is not None:
        copy_bundle(folder, store, version)
        set_current(store, version)


def copy_bundle(source: Folder, target: Folder, version: str) -> None:
    """Copy a bundle that `target` lacks, after checking its digests."""
    if not is_complete(target, version):
        bundle = read_bundle(source, version)
        manifest = msgspec.json.encode(bundle.manifest)
        write_folder(target / version, {**bundle.files, "manifest.json": manifest, "READY": b""})
