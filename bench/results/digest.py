"""The digest of what makes a figure: code, library versions and data. A cached figure of another digest is stale."""

import hashlib
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from testkit.checkout import ROOT


def digest_inputs(code: Iterable[str], *, libraries: Iterable[str] = (), files: Iterable[Path] = ()) -> str:
    """Digest of code (folders and files, relative to the checkout), versions of distributions, and further files.

    Raises FileNotFoundError for a path that does not exist or a folder without Python: its code would go unnoticed.
    """
    digest = hashlib.sha256(" ".join(f"{name} {version(name)}" for name in libraries).encode())
    sources = (source for entry in code for source in list_sources(ROOT / entry))
    for path in (*sources, *files):
        digest.update(f"\n{path.name}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def list_sources(path: Path) -> list[Path]:
    """The Python files of a folder, in order, or the file itself."""
    sources = [path] if path.is_file() else sorted(path.rglob("*.py"))
    if not sources:
        raise FileNotFoundError(f"Digested code should exist. Found nothing at {path}.")
    return sources
