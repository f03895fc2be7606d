import json

import pytest

from bench.quality.rollback import ERROR, MARGIN, TASK_LEVELS, compute_lost_gain, find_error_size, main


def test_errors_at_the_margin_lose_exactly_the_margin() -> None:
    _, level = TASK_LEVELS["click"]

    assert compute_lost_gain(ERROR, level) == 0
    assert compute_lost_gain(find_error_size(MARGIN, level), level) == pytest.approx(MARGIN, abs=1e-3)


def test_a_small_run_rolls_back_harmful_bundles_only(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["--json", "--scale", "0"])

    printed = json.loads(capsys.readouterr().out)
    assert status == 0
    assert printed["bundles"] == 3
    assert printed["found"]["click, sound"]["taken_back"] == 0
    assert printed["found"]["click, harmful"]["taken_back"] == 1
