"""The delay bench: a stream whose truth is known, and what of it is told to whom."""

import json

import numpy as np
import pytest

from bench.quality.delayed_feedback import command
from bench.quality.delayed_feedback.command import compute_gap_closed, main
from bench.quality.delayed_feedback.stream import DAY_MS, DELAY, Method, StreamKind, build_examples, simulate_stream
from training.online.delayed_feedback import find_corrections

WORLDS: list[StreamKind] = ["clicks", "lists"]


@pytest.mark.parametrize("kind", WORLDS)
def test_a_stream_has_early_purchases_late_ones_and_none_beyond_the_window(kind: StreamKind) -> None:
    world = simulate_stream(kind, 1, 0, 4, 1_000)

    waited_ms = (world.buy_ms - world.click_ms)[world.buy]

    assert 0.3 < (waited_ms <= DELAY.wait_ms).mean() < 0.7
    assert (waited_ms > DAY_MS).mean() > 0.1
    assert waited_ms.min() >= 0
    assert waited_ms.max() <= DELAY.window_ms


@pytest.mark.parametrize("kind", WORLDS)
@pytest.mark.parametrize("way", ["oracle", "naive", "waiting", "ours"])
def test_each_label_is_told_once_and_corrections_to_those_who_take_them(kind: StreamKind, way: Method) -> None:
    world = simulate_stream(kind, 1, 0, 4, 1_000)
    late = (world.buy & (world.buy_ms > world.click_ms + DELAY.wait_ms)).sum()

    examples, told_ms = build_examples(world, way)

    purchase = examples.labels["purchase"]
    takes = way in ("naive", "ours")
    assert np.all(np.diff(told_ms) >= 0)
    assert np.nansum(purchase) == world.buy.sum()
    assert (~np.isnan(purchase)).sum() == len(world.ts_ms) + takes * late
    if way != "waiting":
        assert find_corrections(examples, examples.tasks[-1], DELAY.wait_ms).sum() == takes * late
    if kind == "lists":
        assert np.nansum(examples.labels["click"]) == world.click.sum()


def test_who_is_as_good_as_the_oracle_closes_the_whole_gap() -> None:
    run = {way: {"log_loss": loss} for way, loss in {"oracle": 0.4, "naive": 0.5, "ours": 0.4, "waiting": 0.55}.items()}

    assert compute_gap_closed(run, "ours") == pytest.approx(1)  # type: ignore[arg-type]
    assert compute_gap_closed(run, "waiting") == pytest.approx(-0.5)  # type: ignore[arg-type]


def test_a_small_run_says_how_much_of_the_gap_closes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "WARMUP_DAYS", 1)
    monkeypatch.setattr(command, "HISTORY_DAYS", 4)
    monkeypatch.setattr(command, "STEP_MS", DAY_MS // 4)

    status = main(["--json", "--seeds", "1", "--days", "1", "--scale", "0.02"])

    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert status in (0, 1)
    assert answer["gap_closed"] == answer["streams"]["clicks"]["gap_closed"]["mean"]
    assert set(answer["streams"]["lists"]["ways"]) == {"oracle", "naive", "waiting", "ours"}
    assert all(
        np.isfinite(figure["mean"])
        for stream in answer["streams"].values()
        for figures in stream["ways"].values()
        for figure in figures.values()
    )
