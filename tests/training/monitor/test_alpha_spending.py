from pathlib import Path

import msgspec
import numpy as np

from training.monitor.alpha_spending import AlphaSpending, Analysis, AnalysisRecord


def test_all_analyses_together_spend_less_than_the_whole_risk(tmp_path: Path) -> None:
    spending = AlphaSpending(bundles=tmp_path, version="v", rows_min=100)

    shares = [spending.spend("click", np.arange(n + 1)) for n in range(50)]

    assert shares[:3] == [1 / 2, 1 / 6, 1 / 12]
    assert sum(shares) < 1


def test_an_analysis_is_due_after_half_as_many_new_rows(tmp_path: Path) -> None:
    spending = AlphaSpending(bundles=tmp_path, version="v", rows_min=100)
    assert not spending.is_due("click", np.arange(1, 100))
    assert spending.is_due("click", np.arange(1, 101))

    spending.spend("click", np.arange(1, 101))

    assert not spending.is_due("click", np.arange(1, 150))
    assert spending.is_due("click", np.arange(1, 151))
    assert spending.is_due("click", np.arange(51, 151))  # the oldest rows have left the window
    assert spending.is_due("fraud", np.arange(1, 101))  # another question has analyses of its own


def test_a_restarted_monitor_continues_the_count_of_analyses(tmp_path: Path) -> None:
    AlphaSpending(bundles=tmp_path, version="v", rows_min=100).spend("click", np.arange(1, 101))

    restarted = AlphaSpending(bundles=tmp_path, version="v", rows_min=100)

    assert not restarted.is_due("click", np.arange(1, 101))
    assert restarted.spend("click", np.arange(1, 151)) == 1 / 6
    assert AlphaSpending(bundles=tmp_path, version="another", rows_min=100).spend("click", np.arange(1, 101)) == 1 / 2


def test_unreadable_records_of_analyses_start_from_the_beginning(tmp_path: Path) -> None:
    (tmp_path / "watched.json").write_bytes(b"junk")

    assert AlphaSpending(bundles=tmp_path, version="v", rows_min=1).spend("click", np.arange(1, 3)) == 1 / 2
    actual = msgspec.json.decode((tmp_path / "watched.json").read_bytes(), type=AnalysisRecord)
    assert actual == AnalysisRecord("v", {"click": Analysis(1, 2, 2)})
