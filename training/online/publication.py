"""Crash-safe publication of an updated model: checkpoint, bundle and pointer all appear, or none of them does.

The checkpoint is written first, then the bundle, then the pointer, each atomically. A marker file exists until then. A
learner that finds one at its start removes what the pointer does not name, so that no checkpoint stays without its
bundle, and the serving model learns the same feedback again.
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
    """Store and export a model; returns its version. Raises `BadBundle` or `BadData`, with nothing left behind."""
    version = checkpoint.metadata.version
    replace_durably(bundles / MARKER, json.dumps({"version": version, "process": os.getpid()}).encode())
    try:
        write_checkpoint(bundles, checkpoint)
        return export(checkpoint, bundles, thresholds).manifest.version
    finally:
        clean_up(bundles)


def clean_up(bundles: Path) -> str | None:
    """Remove the files of an interrupted publication; returns its version, None if there was none.

    Only for the holder of `learner_lock`: it deletes temporary files that a running learner may be writing.
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
