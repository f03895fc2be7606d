import json

import pytest

from bench.quality.rollback import ERROR, MARGIN, TASK_LEVELS, compute_lost_gain, find_error_size, main


def test_a_bundle_at_the_margin_loses_just_that() -> None:
    _, level = TASK_LEVELS["click"]

    assert compute_lost_gain(ERROR, level) == 0
    assert compute_lost_gain(find_error_size(MARGIN, level), level) == pytest.approx(MARGIN, abs=1e-3)


def test_a_small_run_takes_harmful_bundles_back_and_leaves_sound_ones(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["--json", "--scale", "0"])

    printed = json.loads(capsys.readouterr().out)
    assert status == 0
    assert printed["bundles"] == 3
    assert printed["found"]["click, sound"]["taken_back"] == 0
    assert printed["found"]["click, harmful"]["taken_back"] == 1
