"""A better model becomes the serving one, whole or not at all, whatever ends the learner meanwhile.

A checkpoint is written first, then the bundle, then the pointer, and each of them appears at once. A mark tells that
this is under way: who finds one at its start takes back what was not pointed to, so no checkpoint is left without its
bundle, and what it had learned from is learned from again, by the model that still serves.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Final

from contract.bundle import current_version, replace_durably
from export.exporter import Thresholds, export
from model.checkpoint import Checkpoint, checkpoint_path, write_checkpoint

MARKER: Final = "publishing.json"


def publish(checkpoint: Checkpoint, bundles: Path, thresholds: Thresholds) -> str:
    """Keep and export a model; returns its version. Raises `BadBundle`, `BadData` with nothing left behind."""
    version = checkpoint.metadata.version
    replace_durably(bundles / MARKER, json.dumps({"version": version, "process": os.getpid()}).encode())
    try:
        write_checkpoint(bundles, checkpoint)
        return export(checkpoint, bundles, thresholds).manifest.version
    finally:
        clean_up(bundles)


def clean_up(bundles: Path) -> str | None:
    """Take back what a publication left that did not come to its end; returns the version that it was of.

    For the sole learner: what lies aside under its names is nobody else's.
    """
    for leftover in [*bundles.glob(".publishing.*"), *bundles.glob(".learner.*"), *bundles.glob("refused/**/.*")]:
        leftover.unlink(missing_ok=True)
    try:
        marker = json.loads((bundles / MARKER).read_bytes())
        version, process = str(marker["version"]), int(marker["process"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    if current_version(bundles) == version:
        (bundles / MARKER).unlink()
        return None
    for folder in (bundles / version, *bundles.glob(f".{version}.*")):
        shutil.rmtree(folder, ignore_errors=True)
    checkpoint = checkpoint_path(bundles, version)
    for path in (checkpoint, checkpoint.with_name(f".{version}.{process}"), bundles / f".current.{process}"):
        path.unlink(missing_ok=True)
    (bundles / MARKER).unlink()
    return version
