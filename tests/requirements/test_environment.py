"""The environment's script, and what the locks promise."""

import re
import sys
import tomllib
from pathlib import Path

import pytest

from requirements import environment
from requirements.environment import LOCKS, Torch, importable_torch, locks
from tests.checkout import ROOT


def distribution_names(torch: Torch | None) -> list[str]:
    return [lock.name for lock in locks(torch)]


def read_pins(lock: str) -> dict[str, str]:
    lines = (LOCKS / lock).read_text().splitlines()
    return dict(re.split("==", line.split()[0], maxsplit=1) for line in lines if "==" in line)


@pytest.mark.parametrize("own", [Torch("2.9.0+cpu", None), Torch("2.15.0", None), Torch("2.15.0+cu126", "12.6")])
def test_a_build_that_the_user_chose_is_kept(own: Torch) -> None:
    assert distribution_names(own) == ["environment.txt"]


@pytest.mark.parametrize(
    "other", [None, Torch("2.15.0", "13.2"), Torch("2.8.1+cpu", None), Torch("3.0.0+cpu", None), Torch("1.13.1", None)]
)
def test_no_torch_or_the_registrys_own_or_an_unsuitable_one_gets_the_locked_one(other: Torch | None) -> None:
    assert distribution_names(other) == ["environment.txt", "torch.txt"]


def test_a_torch_is_found_by_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a torch that imports and calls itself a CPU build
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(
        "from types import SimpleNamespace\nversion = SimpleNamespace(cuda=None)"
    )
    (tmp_path / "torch-2.9.1+cpu.dist-info").mkdir()
    (tmp_path / "torch-2.9.1+cpu.dist-info" / "METADATA").write_text("Name: torch\nVersion: 2.9.1+cpu\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    # Then it is found as such
    assert importable_torch(sys.executable) == Torch("2.9.1+cpu", None)

    # And when it stops importing, there is none
    (tmp_path / "torch" / "__init__.py").write_text("raise ImportError('libtorch_cpu.so is gone')")
    assert importable_torch(sys.executable) is None


def test_the_bounds_of_a_kept_torch_are_those_of_the_project() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]

    assert "torch>={}.{},<{}".format(*environment.TORCH_FROM, environment.TORCH_BELOW[0]) in groups["training"]


def test_locks_agree_with_one_another() -> None:
    everything = read_pins("environment.txt") | read_pins("torch.txt")

    for lock in ("environment.txt", "torch.txt", "training.txt", "worker.txt"):
        assert read_pins(lock).items() <= everything.items()


def test_the_workers_lock_is_without_torch_and_the_environments_leaves_it_out() -> None:
    assert "torch" in read_pins("torch.txt")
    for lock in ("environment.txt", "training.txt", "worker.txt"):
        assert not {"torch", "triton", "cuda-toolkit"} & read_pins(lock).keys()


def test_every_locked_version_has_hashes_and_no_registry_is_named() -> None:
    for lock in LOCKS.glob("*.txt"):
        text = lock.read_text()
        assert not re.search(r"https?:|--index-url|--extra-index-url|--find-links", text)
        assert all("--hash=sha256:" in pin for pin in re.split(r"\n(?=\S)", text.strip()))
