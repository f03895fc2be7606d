"""The bundle format: an exported model as a folder that is published atomically, with digests of all files.

A folder is one of the disk, or one of an object store (`contract.object_folder`), where READY is what makes it appear.

    BUNDLES/
        current.json               {"version": ...}, replaced atomically
        trial.json                 {"version": ..., "share": 0 to 1}: the trial bundle, see `contract.experiment`
        VERSION/manifest.json      this module's `Manifest`
        VERSION/*.onnx             subgraphs of one network
        VERSION/neighbours.npz     items (M,) S, neighbours (M, K) int32 (-1: none), weights (M, K) float32,
                                   fading () float32: a user's k-th latest item is weighted by k ** -fading,
                                   popular (P,) int32: numbers of items, the most popular first
        VERSION/vectors.npz        with the next-item part alone: items (M,) S, those of neighbours.npz, vectors (M, d)
                                   float32 of unit length, counts (M,) and recent_counts (M,) float32: interactions in
                                   all of the time and in its last tenth
        VERSION/other_neighbours.npz
                                   with the next-item part, where there is a second source: its neighbours, weights and
                                   fading, as in neighbours.npz
        VERSION/together.npz       where baskets are known: items (M,) S, those bought together with each (M, K) int32
                                   as `neighbours`, -1 after the last, and the strength of each pair (M, K) float32 as
                                   `weights`, strongest first
        VERSION/golden.npz         GRAPH/in/INPUT and GRAPH/out/OUTPUT: torch's outputs, to be reproduced
        VERSION/READY              empty, written last

Inputs and outputs of the graphs in `contract.graphs`. A block is `GROUP.numbers` (N, n) float32 and `GROUP.ids` (N, m)
int64:

    items      item block (M rows)                                        -> item_part (M, H) float32
    recommend  user and context blocks (U), item_part (P, H), user (P,) int64: the row of each pair's user
                                                                          -> click (P,), purchase (P,) float32
    decide     user, order and context blocks (N)                         -> fraud (N,) and any other task of this graph
    review     user, review and item blocks (N)                           -> fake_review (N,) and any other task of it
    search     user and query blocks (Q), item_part (P, H), search (P,) int64: the row of each pair's search
                                                                          -> relevance (P,)
    classify   item block (N)                                             -> category (N, classes)

The next-item part is learned from interactions alone; its graphs read no features of events:

    sequence   rows (N, L) int64: a user's latest interactions, newest first, as rows of vectors.npz plus 1, 0: none;
               actions (N, L) int64: 0 none, 1 click, 2 cart, 3 order;
               ages (N, L) float32: days before now                       -> user (N, d) float32 of unit length
    ranker     features (P, F) float32 of `contract.retrieval.features`   -> score (P,) float32, which orders the
                                                                             candidates of a user

Both or neither are there, and golden.npz has values of both. `evaluation["next_item"]` of the manifest has their
metrics on held-out interactions, and those of the candidates' own order.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct, field

from contract.errors import BadBundle
from contract.object_folder import Folder, ObjectFolder
from contract.tasks import Task

FILE_BYTES_MAX: Final = 2 * 1024**3


class Manifest(Struct, frozen=True, kw_only=True):
    """Origin, requirements and contents of a bundle. `files`: the SHA-256 of every other file but READY."""

    version: str
    parent: str | None
    created_ms: int
    features: dict[str, str]  # name -> digest, in the order of columns
    tasks: tuple[Task, ...]
    thresholds: dict[str, dict[str, float]] = field(default_factory=dict)  # task -> action -> least probability
    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)  # multiclass task -> its classes in order
    evaluation: dict[str, dict[str, float]] = field(default_factory=dict)  # task -> metric -> value
    positions: dict[str, int] = field(default_factory=dict)  # of training: "topic/partition@id" -> offset
    profile_share: float | None = None  # of the training rows, those whose user had a history; None: unknown
    files: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle in memory: its manifest, and files whose digests are those of the manifest."""

    manifest: Manifest
    files: Mapping[str, bytes]

    @property
    def version(self) -> str:
        return self.manifest.version


def current_version(bundles: Folder) -> str | None:
    """The current version, None before the first bundle; raises `BadBundle` for a broken pointer."""
    try:
        pointer = json.loads((bundles / "current.json").read_bytes())
        return str(pointer["version"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadBundle(f"current.json should name a version. Found: {error!r}") from error


def read_bundle(bundles: Folder, version: str) -> Bundle:
    """The bundle of that version with every digest checked; raises `BadBundle` with what was found."""
    manifest, folder = read_manifest(bundles, version), bundles / version
    return Bundle(manifest, {name: read_file(folder, name, digest) for name, digest in manifest.files.items()})


def read_manifest(bundles: Folder, version: str) -> Manifest:
    """The manifest of a complete bundle, whose other files are not read; raises `BadBundle`."""
    folder = bundles / version
    if not is_complete(bundles, version):
        problem = "no READY in it" if folder.is_dir() else "no such folder"
        raise BadBundle(f"Bundle {version} should be complete. Found {problem}.")
    try:
        manifest = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError) as error:
        raise BadBundle(f"Bundle {version} should have a readable manifest. Found: {error}") from error
    if manifest.version != version:
        raise BadBundle(f"Bundle {version} should be of that version. Found {manifest.version} in its manifest.")
    return manifest


def is_complete(bundles: Folder, version: str) -> bool:
    """Whether the bundle of that version has appeared; raises `BadBundle` for a store that does not answer."""
    try:
        return (bundles / version / "READY").exists()
    except OSError as error:
        raise BadBundle(f"Bundle {version} should be readable. Found: {error}") from error


def read_file(folder: Folder, name: str, digest: str) -> bytes:
    """The content of one file of a bundle, read once and checked against its digest."""
    path = folder / name
    if Path(name).name != name or path.is_symlink():
        raise BadBundle(f"A bundle's files should lie in its own folder. Found {name!r}.")
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise BadBundle(f"{name} should have at most {FILE_BYTES_MAX} bytes. Found {path.stat().st_size}.")
        content = path.read_bytes()
    except OSError as error:
        raise BadBundle(f"{name} should be readable. Found: {error}") from error
    actual = hashlib.sha256(content).hexdigest()
    if actual != digest:
        raise BadBundle(f"{name} should have the digest {digest[:12]}…. Found {actual[:12]}….")
    return content


def publish(bundles: Folder, manifest: Manifest, files: Mapping[str, bytes], *, make_current: bool = True) -> Manifest:
    """Publish a bundle atomically and make it current. Returns the manifest with the files' digests.

    Without `make_current` it is only published, for a trial. Raises `BadBundle` with nothing left behind, also on a
    full disk: the current bundle stays.
    """
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    manifest = msgspec.structs.replace(manifest, files=digests)
    if (bundles / manifest.version).exists() and not is_leftover(bundles, manifest.version):
        raise BadBundle(f"A version should be published once. Found {manifest.version} already there.")
    write_folder(bundles / manifest.version, {**files, "manifest.json": msgspec.json.encode(manifest), "READY": b""})
    try:
        fsync_folder(bundles)
        if make_current:
            set_current(bundles, manifest.version)
    except (OSError, BadBundle) as error:
        remove_bundle(bundles, manifest.version)
        raise BadBundle(f"Bundle {manifest.version} should be pointed to. Found: {error}") from error
    return manifest


def is_leftover(bundles: Folder, version: str) -> bool:
    """Whether a bundle in an object store was never completed; a folder on the disk appears at once."""
    return isinstance(bundles, ObjectFolder) and not is_complete(bundles, version)


def write_folder(folder: Folder, files: Mapping[str, bytes]) -> None:
    """Create a folder with these files atomically; raises `BadBundle`. The last file is that which readers ask for."""
    if isinstance(folder, ObjectFolder):
        write_objects(folder, files)
        return
    staging = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        shutil.rmtree(staging, ignore_errors=True)  # left by a crashed process of the same pid
        staging.mkdir(parents=True)
        for name, content in files.items():
            write_durably(staging / name, content)
        staging.rename(folder)
    except OSError as error:
        raise BadBundle(f"Bundle {folder.name} should be written whole. Found: {error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_objects(folder: ObjectFolder, files: Mapping[str, bytes]) -> None:
    """Write the objects one after the other, in this order; raises `BadBundle`, and removes what it wrote."""
    try:
        for name, content in files.items():
            (folder / name).write_bytes(content)
    except OSError as error:
        with suppress(OSError):
            folder.remove_tree()
        raise BadBundle(f"Bundle {folder.name} should be written whole. Found: {error}") from error


def remove_bundle(bundles: Folder, version: str) -> None:
    """Remove a bundle that is not current, so that publishing it can be retried."""
    with suppress(BadBundle):
        if current_version(bundles) == version:
            return
    folder = bundles / version
    if isinstance(folder, ObjectFolder):
        with suppress(OSError):
            folder.remove_tree()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def set_current(bundles: Folder, version: str) -> None:
    """Make `version` the one that workers load; readers see the old pointer or the new one, never a partial one.

    Raises `BadBundle`.
    """
    replace_durably(bundles / "current.json", json.dumps({"version": version}).encode())


def replace_durably(path: Folder, content: bytes) -> None:
    """Replace a file atomically; raises `BadBundle`, which leaves the old file and no other."""
    if isinstance(path, ObjectFolder):
        try:
            path.write_bytes(content)
        except OSError as error:
            raise BadBundle(f"{path} should be written. Found: {error}") from error
        return
    staging = path.with_name(f".{path.stem}.{os.getpid()}")
    try:
        write_durably(staging, content)
        staging.replace(path)
    except OSError as error:
        staging.unlink(missing_ok=True)
        raise BadBundle(f"{path.name} should be written whole. Found: {error}") from error
    with suppress(OSError):  # the file is replaced; a power cut may restore the old one, which is complete
        fsync_folder(path.parent)


def write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def fsync_folder(folder: Folder) -> None:
    """Make the names in a folder durable; those of an object store are."""
    if isinstance(folder, ObjectFolder):
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
