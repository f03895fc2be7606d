import json

import pytest

from bench.drift import SHIFTS, main


def test_a_small_run_tells_the_rate_of_false_alarms_and_how_soon_shifts_are_found(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--json", "--scale", "0.02"]) == 0

    told = json.loads(capsys.readouterr().out)
    assert told["asked"] == 16_000
    assert told["events"] == 16_000
    assert told["events_per_false_alarm"] == round(told["events"] / max(told["alarms"], 1))
    assert told["detected"].keys() == SHIFTS.keys()
    assert all(one["share"] == 1 for one in told["detected"].values())
