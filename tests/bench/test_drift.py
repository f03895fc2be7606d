import json

import pytest

from bench.quality.drift import SHIFTS, main


def test_a_small_run_reports_false_alarms_and_detection_delays(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--json", "--scale", "0.02"]) == 0

    printed = json.loads(capsys.readouterr().out)
    assert printed["asked"] == 16_000
    assert printed["events"] == 16_000
    assert printed["events_per_false_alarm"] == round(printed["events"] / max(printed["alarms"], 1))
    assert printed["detected"].keys() == SHIFTS.keys()
    assert all(shift["share"] == 1 for shift in printed["detected"].values())
