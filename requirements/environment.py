"""Installs the locks of this folder into the environment that runs it.

It uses only the standard library, because it runs before anything is installed. The Makefile creates the environment
and installs uv.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

LOCKS = Path(__file__).parent
TORCH_FROM = (2, 9)  # the lower bound in pyproject.toml; a test compares them
TORCH_BELOW = (3, 0)

PROBE = """
import importlib.metadata, json, torch
print(json.dumps({"version": importlib.metadata.version("torch"), "cuda": torch.version.cuda}))
"""


@dataclass(frozen=True, slots=True)
class Torch:
    """An importable torch: its installed version, and the CUDA version that it was built for, if any."""

    version: str
    cuda: str | None

    @property
    def release(self) -> tuple[int, int]:
        """Major and minor version."""
        major, minor = self.version.split(".")[:2]
        return int(major), int(minor)

    @property
    def is_the_users_own(self) -> bool:
        """Whether the user chose this build: the registry's has CUDA and no local label such as `+cpu`."""
        return self.cuda is None or "+" in self.version


def select_locks(torch: Torch | None) -> list[Path]:
    """The locks to install: torch's is left out if a suitable build of the user's own is installed."""
    paths = [LOCKS / "environment.txt"]
    if torch is None or not torch.is_the_users_own or not TORCH_FROM <= torch.release < TORCH_BELOW:
        paths.append(LOCKS / "torch.txt")
    return paths


def find_torch(python: str) -> Torch | None:
    """The torch that `python` imports, None if it cannot be imported."""
    probe = subprocess.run([python, "-c", PROBE], capture_output=True, text=True, check=False)
    if probe.returncode != 0:
        return None
    fields = json.loads(probe.stdout.splitlines()[-1])
    return Torch(version=fields["version"], cuda=fields["cuda"])


def main() -> int:
    """Install the locks into the environment of this interpreter; the exit status is uv's."""
    torch = find_torch(sys.executable)
    lock_paths = select_locks(torch)
    if torch is not None and len(lock_paths) == 1:
        print(f"torch {torch.version} is installed already and kept; the locked build is skipped.")
    # The locks are complete, so nothing needs resolving, and uv does not replace a torch that is kept.
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
        "--compile-bytecode",  # once here, not in every process that may not write bytecode
    ]
    for lock in lock_paths:
        command += ["-r", str(lock)]
    # Some wheels of the locked torch are over a gigabyte, too much for the default timeout of 30 s.
    return subprocess.run(command, env={"UV_HTTP_TIMEOUT": "300", **os.environ}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
