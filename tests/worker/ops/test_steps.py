"""The step mark: where a worker is, readable from outside, also after its death."""

from pathlib import Path

import pytest

from worker.ops.steps import STEP_CODES, STEPS, StepMarker


def test_every_step_is_shown_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    shown = tmp_path / "step"
    monkeypatch.setenv("SHOPSTREAM_STEP_FILE", str(shown))
    mark = StepMarker()
    for step in STEPS:
        # when
        mark(step)
        # then
        assert shown.read_bytes() == bytes([STEP_CODES[step]])
        assert mark.current == step


def test_without_a_file_the_step_is_known_inside_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHOPSTREAM_STEP_FILE", raising=False)
    mark = StepMarker()

    mark("merge")

    assert mark.current == "merge"


def test_a_step_of_no_protocol_is_refused() -> None:
    with pytest.raises(KeyError):
        StepMarker()("sleep")
