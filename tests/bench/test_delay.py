"""The delayed feedback bench: a stream with known final labels, and the labels that each method gets."""

import json

import numpy as np
import pytest

from bench.quality.delayed_feedback import command
from bench.quality.delayed_feedback.command import compute_gap_closed, main
from bench.quality.delayed_feedback.stream import DELAY, Method, StreamKind, build_examples, simulate_stream
from contract.units import DAY_MS
from training.online.delayed_feedback import find_corrections

KINDS: list[StreamKind] = ["clicks", "lists"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_has_early_and_late_purchases_within_the_window(kind: StreamKind) -> None:
    stream = simulate_stream(kind, 1, 0, 4, 1_000)

    waited_ms = (stream.buy_ms - stream.click_ms)[stream.buy]

    assert 0.3 < (waited_ms <= DELAY.wait_ms).mean() < 0.7
    assert (waited_ms > DAY_MS).mean() > 0.1
    assert waited_ms.min() >= 0
    assert waited_ms.max() <= DELAY.window_ms


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["oracle", "naive", "waiting", "ours"])
def test_each_label_is_given_once_and_corrections_to_methods_that_use_them(kind: StreamKind, method: Method) -> None:
    stream = simulate_stream(kind, 1, 0, 4, 1_000)
    late = (stream.buy & (stream.buy_ms > stream.click_ms + DELAY.wait_ms)).sum()

    examples, known_ms = build_examples(stream, method)

    purchase = examples.labels["purchase"]
    corrects = method in ("naive", "ours")
    assert np.all(np.diff(known_ms) >= 0)
    assert np.nansum(purchase) == stream.buy.sum()
    assert (~np.isnan(purchase)).sum() == len(stream.ts_ms) + corrects * late
    if method != "waiting":
        assert find_corrections(examples, examples.tasks[-1], DELAY.wait_ms).sum() == corrects * late
    if kind == "lists":
        assert np.nansum(examples.labels["click"]) == stream.click.sum()


def test_a_method_as_good_as_the_oracle_closes_the_whole_gap() -> None:
    run = {
        method: {"log_loss": loss}
        for method, loss in {"oracle": 0.4, "naive": 0.5, "ours": 0.4, "waiting": 0.55}.items()
    }

    assert compute_gap_closed(run, "ours") == pytest.approx(1)  # type: ignore[arg-type]
    assert compute_gap_closed(run, "waiting") == pytest.approx(-0.5)  # type: ignore[arg-type]


def test_a_small_run_reports_the_closed_gap(
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
