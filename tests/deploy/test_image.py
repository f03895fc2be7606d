"""The images can be built from this checkout, and the worker's has no torch."""

import re
from fnmatch import fnmatch

import pytest

from tests.checkout import ROOT

INSTRUCTIONS = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text()).splitlines()
COPIED = [
    source.rstrip("/")
    for line in INSTRUCTIONS
    if line.startswith("COPY ") and "--from=" not in line
    for source in line.split()[1:-1]
]


def instructions_of_stage(name: str) -> list[str]:
    """The instructions of a stage after those of the stages that it is built on."""
    start = next(n for n, line in enumerate(INSTRUCTIONS) if line.endswith(f" AS {name}"))
    end = next((n for n in range(start + 1, len(INSTRUCTIONS)) if INSTRUCTIONS[n].startswith("FROM ")), None)
    parent = INSTRUCTIONS[start].split()[1]
    below = instructions_of_stage(parent) if any(line.endswith(f" AS {parent}") for line in INSTRUCTIONS) else []
    return below + INSTRUCTIONS[start:end]


@pytest.mark.parametrize("source", sorted(set(COPIED)))
def test_what_is_copied_exists_and_reaches_the_builder(source: str) -> None:
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]

    assert (ROOT / source).exists()
    assert any(fnmatch(source, pattern) for pattern in allowed)


def test_the_worker_image_is_the_default_and_knows_neither_torch_nor_training() -> None:
    last = [line for line in INSTRUCTIONS if line.startswith("FROM ")][-1]
    lines = "\n".join(instructions_of_stage("worker") + instructions_of_stage("worker-environment"))

    assert last.endswith(" AS worker")
    assert not re.search(r"torch|training|model/", lines)


@pytest.mark.parametrize("name", ["worker", "training"])
def test_an_image_runs_as_a_user_without_rights_from_pinned_hashes(name: str) -> None:
    users = [line.split()[1] for line in instructions_of_stage(name) if line.startswith("USER ")]
    installs = [line for line in instructions_of_stage(f"{name}-environment") if "pip install" in line]

    assert users == ["shopstream"]
    assert installs
    assert all("--require-hashes" in line for line in installs)


def test_a_folder_of_ours_in_an_image_has_the_folders_it_imports() -> None:
    imports = {"worker": {"contract", "transport"}, "training": {"contract", "transport", "model", "export"}}

    for name, needed in imports.items():
        copied = {line.split()[1].rstrip("/") for line in instructions_of_stage(name) if line.startswith("COPY ")}
        assert needed | {name} <= copied
