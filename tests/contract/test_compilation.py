"""Compiled functions and their cache on disk."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from contract.compilation import describe, jit

CONTRACT = Path(__file__).parents[2] / "contract"
# A user searched at the beginning of a day, and is looked at 90 minutes later.
FOLD = """
from contract.events.model import Search
from contract.profiles.entity_updates import Arrival, to_updates
from contract.profiles.record import AGGREGATES
from contract.profiles.store import fold
updates = to_updates([Arrival("searches/0", 0, Search(event_id="e", ts_ms=86_400_000, user_id="u", query=""))])
(counts,), _ = fold([{}], updates).read_at(["user:u"], [86_400_000 + 90 * 60_000])
print({name: counts[AGGREGATES.index(f"searches.count_{name}")].item() for name in ("1h", "2h", "1d")
    if f"searches.count_{name}" in AGGREGATES})
"""
FACTOR = 2


def fold_in(folder: Path) -> str:
    """What `FOLD` prints with the sources and the cache of a folder."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "NUMBA_CACHE_DIR": str(folder / "cache"), "NUMBA_OPT": "0"}
    command = [sys.executable, "-c", FOLD]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('"1d": DAY_MS,', '"2h": 2 * HOUR_MS, "1d": DAY_MS,', "{'1h': 0.5, '2h': 1.0, '1d': 1.0}"),
        ('"1h": HOUR_MS,', '"1h": 2 * HOUR_MS,', "{'1h': 1.0, '1d': 1.0}"),
    ],
    ids=["a window more", "a wider window"],
)
def test_changed_windows_are_compiled_again_with_a_warm_cache(
    tmp_path: Path, old: str, new: str, expected: str
) -> None:
    # given
    shutil.copytree(CONTRACT, tmp_path / "contract", ignore=shutil.ignore_patterns("__pycache__"))
    assert fold_in(tmp_path) == "{'1h': 0.5, '1d': 1.0}"
    # when
    record = tmp_path / "contract/profiles/record.py"
    source = record.read_text()
    record.write_text(source.replace(old, new))
    # then
    assert record.read_text() != source
    assert fold_in(tmp_path) == expected


def test_unchanged_functions_are_loaded_from_the_cache(tmp_path: Path) -> None:
    # given
    shutil.copytree(CONTRACT, tmp_path / "contract", ignore=shutil.ignore_patterns("__pycache__"))
    fold_in(tmp_path)
    files = sorted((tmp_path / "cache").rglob("*.nb[ic]"))
    times = [file.stat().st_mtime_ns for file in files]
    # when
    fold_in(tmp_path)
    # then
    assert files
    assert sorted((tmp_path / "cache").rglob("*.nb[ic]")) == files
    assert [file.stat().st_mtime_ns for file in files] == times


def test_the_key_covers_constants_of_called_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    before = list(describe(double.py_func))
    # when
    monkeypatch.setattr(sys.modules[__name__], "FACTOR", 3)
    # then
    assert list(describe(double.py_func)) != before


@jit
def multiply(number: int) -> int:
    return number * FACTOR


@jit
def double(number: int) -> int:
    return int(multiply(number))


def test_a_function_whose_constants_are_defined_later_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    monkeypatch.delattr(sys.modules[__name__], "FACTOR")
    # then
    with pytest.raises(KeyError, match="FACTOR"):
        jit(multiply.py_func)
