"""Fills the environment that runs it from the locks beside it.

A script of its own, with nothing but the standard library, because it runs before anything is installed. Creating the
environment and installing uv are the Makefile's.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

LOCKS = Path(__file__).parent
TORCH_FROM = (2, 9)  # The lower bound in pyproject.toml; a test holds the two together.
TORCH_BELOW = (3, 0)

PROBE = """
import importlib.metadata, json, torch
print(json.dumps({"version": importlib.metadata.version("torch"), "cuda": torch.version.cuda}))
"""


@dataclass(frozen=True, slots=True)
class Torch:
    """A torch that can be imported: its version as installed, and the CUDA version it was built for, if any."""

    version: str
    cuda: str | None

    @property
    def release(self) -> tuple[int, int]:
        """Major and minor version."""
        major, minor = self.version.split(".")[:2]
        return int(major), int(minor)

    @property
    def is_the_users_own(self) -> bool:
        """Whether somebody chose this build: the registry's has CUDA and no local label such as `+cpu`."""
        return self.cuda is None or "+" in self.version


def locks(torch: Torch | None) -> list[Path]:
    """The locks to install: torch's own is left out when a suitable build of the user's is there already."""
    chosen = [LOCKS / "environment.txt"]
    if torch is None or not torch.is_the_users_own or not TORCH_FROM <= torch.release < TORCH_BELOW:
        chosen.append(LOCKS / "torch.txt")
    return chosen


def importable_torch(python: str) -> Torch | None:
    """The torch that `python` imports, or None when it has none or it cannot be imported."""
    probe = subprocess.run([python, "-c", PROBE], capture_output=True, text=True, check=False)
    if probe.returncode != 0:
        return None
    found = json.loads(probe.stdout.splitlines()[-1])
    return Torch(version=found["version"], cuda=found["cuda"])


def main() -> int:
    """Install the locks into the environment of this interpreter; the exit status is uv's."""
    torch = importable_torch(sys.executable)
    chosen = locks(torch)
    if torch is not None and len(chosen) == 1:
        print(f"torch {torch.version} is here already and stays; the locked build is left out.")
    # The locks are whole, so nothing needs resolving, and a torch that is kept cannot be found wanting.
    command = [
        sys.executable,
        "-m",
        "uv",
        "pip",
        "install",
        "--python",
        sys.executable,
        "--no-deps",
        "--require-hashes",
        "--compile-bytecode",  # once here, instead of in every process where Python may not write its own
    ]
    for lock in chosen:
        command += ["-r", str(lock)]
    # Some wheels of the locked torch are over a gigabyte: the default patience of 30 s is short for those.
    return subprocess.run(command, env={"UV_HTTP_TIMEOUT": "300", **os.environ}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
