"""The bootstrap bench: its files, its steps and its comparison, without servers."""

from pathlib import Path

import numpy as np
import pytest

from bench.performance.bootstrap import ShopBench, index_slices, list_simulated, parse
from contract.history.format import read_manifest
from contract.history.sources import MARK
from contract.profiles.record import new_slice
from testkit.checkout import CHECKOUT_VARIABLES


def test_files_become_a_history_in_a_measured_process(tmp_path: Path) -> None:
    bench = ShopBench(folder=tmp_path, variables=CHECKOUT_VARIABLES)
    events = bench.write_files(list_simulated(300, seed=1, users=20))
    inputs = [f"{path.stem}={path}" for path in (tmp_path / "source").iterdir()]
    bench.run_step("history", "training", "history", *inputs, "--out", str(bench.history))
    assert events == read_manifest(bench.history).records == 300
    assert bench.steps["history"].memory_mib > 10


def test_a_step_that_fails_ends_the_bench_with_its_output(tmp_path: Path) -> None:
    bench = ShopBench(folder=tmp_path, variables=CHECKOUT_VARIABLES)
    with pytest.raises(RuntimeError, match="should end with 0"):
        bench.run_step("history", "training", "history", "nowhere.jsonl", "--out", str(bench.history))


def test_slices_are_compared_by_family_and_partition_without_their_offset() -> None:
    record, other = new_slice(), new_slice()
    record["offset"], other["offset"] = 7, 3
    folded = index_slices({"clicks~id/1": record.tobytes(), "judgements~id/1": record.tobytes()})
    bootstrapped = index_slices({"clicks~history.aa/1": other.tobytes(), "clicks~id/0": other.tobytes()}, MARK)
    assert folded == bootstrapped
    other["count"] = np.uint32(1)
    assert folded != index_slices({"clicks~history.aa/1": other.tobytes()}, MARK)


def test_the_simulated_shop_has_ten_million_events_unless_told_otherwise() -> None:
    assert parse([]).events == 10_000_000
