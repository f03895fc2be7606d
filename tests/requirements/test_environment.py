"""The script that installs the environment, and the contents of the locks."""

import re
import sys
import tomllib
from pathlib import Path

import pytest

from requirements import environment
from requirements.environment import LOCKS, Torch, find_torch, select_locks
from tests.checkout import ROOT


def distribution_names(torch: Torch | None) -> list[str]:
    return [lock.name for lock in select_locks(torch)]


def read_pins(lock: str) -> dict[str, str]:
    lines = (LOCKS / lock).read_text().splitlines()
    return dict(re.split("==", line.split()[0], maxsplit=1) for line in lines if "==" in line)


@pytest.mark.parametrize("own", [Torch("2.9.0+cpu", None), Torch("2.15.0", None), Torch("2.15.0+cu126", "12.6")])
def test_a_torch_that_the_user_chose_is_kept(own: Torch) -> None:
    assert distribution_names(own) == ["environment.txt"]


@pytest.mark.parametrize(
    "other", [None, Torch("2.15.0", "13.2"), Torch("2.8.1+cpu", None), Torch("3.0.0+cpu", None), Torch("1.13.1", None)]
)
def test_the_locked_torch_replaces_a_missing_or_unsuitable_one(other: Torch | None) -> None:
    assert distribution_names(other) == ["environment.txt", "torch.txt"]


def test_a_torch_is_found_by_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given a torch that imports as a CPU build
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(
        "from types import SimpleNamespace\nversion = SimpleNamespace(cuda=None)"
    )
    (tmp_path / "torch-2.9.1+cpu.dist-info").mkdir()
    (tmp_path / "torch-2.9.1+cpu.dist-info" / "METADATA").write_text("Name: torch\nVersion: 2.9.1+cpu\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    # then it is found
    assert find_torch(sys.executable) == Torch("2.9.1+cpu", None)

    # and once it no longer imports, there is none
    (tmp_path / "torch" / "__init__.py").write_text("raise ImportError('libtorch_cpu.so is gone')")
    assert find_torch(sys.executable) is None


def test_the_bounds_of_a_kept_torch_are_those_of_pyproject() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]

    assert "torch>={}.{},<{}".format(*environment.TORCH_FROM, environment.TORCH_BELOW[0]) in groups["training"]


def test_locks_agree_with_one_another() -> None:
    all_pins = read_pins("environment.txt") | read_pins("torch.txt")

    for lock in ("environment.txt", "torch.txt", "training.txt", "worker.txt"):
        assert read_pins(lock).items() <= all_pins.items()


def test_only_the_torch_lock_pins_torch() -> None:
    assert "torch" in read_pins("torch.txt")
    for lock in ("environment.txt", "training.txt", "worker.txt"):
        assert not {"torch", "triton", "cuda-toolkit"} & read_pins(lock).keys()


def test_locks_pin_hashes_and_name_no_registry() -> None:
    for lock in LOCKS.glob("*.txt"):
        text = lock.read_text()
        assert not re.search(r"https?:|--index-url|--extra-index-url|--find-links", text)
        assert all("--hash=sha256:" in pin for pin in re.split(r"\n(?=\S)", text.strip()))
