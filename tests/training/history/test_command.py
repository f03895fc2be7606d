"""`python -m training history`: what it prints, and that its history feeds a replay."""

import json
from collections import Counter
from pathlib import Path

import pytest

from contract.units import DAY_MS
from tests.training.history.test_normalisation import START_MS, make_fields, write_lines
from training.__main__ import main
from training.commands.history import parse_time
from training.replay.event_reader import read_history


def test_the_command_writes_a_history_and_prints_its_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_lines(
        tmp_path / "a.jsonl",
        ("orders", make_fields("orders", "o1", START_MS)),
        ("orders", make_fields("orders", "o1", START_MS)),
        ("clicks", {}),
        ("orders", make_fields("orders", "o1", START_MS, amount=7.0)),
    )
    status = main(["history", str(path), "--out", str(tmp_path / "history")])
    output = capsys.readouterr()
    printed = json.loads(output.out)
    assert status == 0
    assert (printed["events"], printed["refused"], printed["duplicates"], printed["conflicts"]) == (1, 1, 1, 1)
    assert "a.jsonl:3" in output.err
    assert "a.jsonl:4: orders o1: should have the same amount as its first record" in output.err
    assert (tmp_path / "history" / "report.json").exists()


def test_a_word_that_is_no_input_is_a_wrong_argument(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["history", str(tmp_path / "nothing.csv"), "--out", str(tmp_path / "history")]) == 2
    assert "nothing.csv" in capsys.readouterr().err


def test_a_replay_reads_a_history_as_it_reads_its_lines_but_not_its_judgements(tmp_path: Path) -> None:
    judgement = {**make_fields("labels", "j1", START_MS + 1), "entities": ["user:u1"]}
    path = write_lines(
        tmp_path / "a.jsonl",
        ("products", make_fields("products", "p1", START_MS)),
        ("orders", make_fields("orders", "o1", START_MS + 1)),
        ("judgements", judgement),
        ("labels", make_fields("labels", "l1", START_MS + DAY_MS)),
    )
    main(["history", str(path), "--out", str(tmp_path / "history")])
    lines, history = (list(read_history([p], Counter())) for p in (path, tmp_path / "history"))
    assert history == [historic for historic in lines if historic.kind != "judgements"]
    assert len(history) == 3


def test_a_time_without_a_zone_is_utc() -> None:
    assert parse_time("2023-11-14T22:13:20") == parse_time("2023-11-14T23:13:20+01:00") == START_MS
