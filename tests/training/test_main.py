import json
from pathlib import Path

import msgspec
import pytest

from contract.bundle import current_version, read_bundle
from demo.simulator.shop import ShopSimulator
from export.__main__ import main as export_main
from export.interactions import read_interactions
from model.checkpoint import checkpoint_path, read_checkpoint
from training.__main__ import main
from training.erasure.arguments import OPTION
from training.erasure.execution import ErasureExecution
from training.trainer.fit import Epoch


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the history of a few days of a simulated shop."""
    folder = tmp_path_factory.mktemp("shop")
    history = ShopSimulator(5, users=60, items=80).simulate_history(4)
    lines = [{"kind": event.kind, "event": event.event} for event in history]
    (folder / "history.jsonl").write_bytes(b"\n".join(map(msgspec.json.encode, lines)))
    return folder


@pytest.fixture
def examples_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    path = folder / "examples.parquet"
    if not path.exists():
        interactions = ["--interactions", str(folder / "interactions.parquet")]
        assert main(["replay", OPTION, str(folder / "history.jsonl"), "--out", str(path), *interactions]) == 0
        printed = json.loads(capsys.readouterr().out)
        assert printed["examples"] > 500
        assert all(count > 0 for count in printed["labels"].values())
        assert printed["rejected"] == {}
    return path


def test_history_becomes_a_bundle_in_three_commands(
    folder: Path, examples_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    interactions = ["--interactions", str(folder / "interactions.parquet")]

    assert main(["fit", OPTION, str(examples_file), "--bundles", str(tmp_path), "--epochs", "1", *interactions]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert export_main(["--latest", "--bundles", str(tmp_path)]) == 0
    assert export_main(["inspect", "--bundles", str(tmp_path)]) == 0

    bundle = read_bundle(tmp_path, printed["version"])
    assert current_version(tmp_path) == printed["version"]
    assert printed["evaluation"]["click"]["rows"] > 0
    next_item = printed["next_item"]
    learned = {"next_item": next_item["evaluation"]} if next_item["is_learned"] else {}
    assert printed["interactions"]["used"] > 0
    assert bundle.manifest.evaluation == printed["evaluation"] | learned
    report = capsys.readouterr().out
    assert printed["version"] in report
    assert "recommend.onnx" in report


def test_the_same_seed_gives_the_same_weights_from_the_command_line(
    examples_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    versions = []
    for seed in ("1", "1", "2"):
        assert (
            main(["fit", OPTION, str(examples_file), "--bundles", str(tmp_path), "--epochs", "1", "--seed", seed]) == 0
        )
        versions.append(json.loads(capsys.readouterr().out)["version"].rpartition("-")[2])

    assert versions[0] == versions[1] != versions[2]


@pytest.mark.parametrize("content", [None, b"", b"no parquet"])
def test_fit_of_an_unreadable_file_exits_with_a_message(
    content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "e.parquet").write_bytes(content)

    assert main(["fit", OPTION, str(tmp_path / "e.parquet"), "--bundles", str(tmp_path / "bundles")]) == 1
    assert "should be Parquet" in capsys.readouterr().err
    assert not (tmp_path / "bundles").exists()


@pytest.mark.parametrize("command", ["describe", "evaluate"])
@pytest.mark.parametrize("content", [None, b"", b"no parquet"])
def test_reports_of_an_unreadable_file_exit_with_a_message_and_no_page(
    command: str, content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "e.parquet").write_bytes(content)

    assert main([command, OPTION, str(tmp_path / "e.parquet"), "--out", str(tmp_path / "out")]) == 1
    assert "should be Parquet" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_history_without_examples_exits_with_a_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "h.jsonl").write_text("")

    assert main(["replay", OPTION, str(tmp_path / "h.jsonl"), "--out", str(tmp_path / "e.parquet")]) == 1
    assert "History should give examples" in capsys.readouterr().err
    assert not (tmp_path / "e.parquet").exists()


def test_invalid_settings_are_all_listed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SHOPSTREAM_MODEL__HIDDEN", "wide")
    monkeypatch.setenv("SHOPSTREAM_TRAINING__EPOCHS", "-1")

    assert main(["fit", OPTION, str(tmp_path / "e.parquet"), "--bundles", str(tmp_path)]) == 2
    printed = capsys.readouterr().err
    assert "`model.hidden` should be a valid integer" in printed
    assert "`training.epochs` should be greater than 0" in printed


def test_follow_without_a_model_names_the_command_that_publishes_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ErasureExecution, "apply", lambda erasures: None)

    assert main(["follow", "--once", "--bundles", str(tmp_path)]) == 1
    assert "`export` publishes one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--latest"], 1, "should hold a checkpoint"),
        (["nowhere.pt"], 2, "should have a checkpoint file, or a command"),
        (["inspect"], 1, "should have a current bundle"),
        (["inspect", "v1"], 1, "Bundle v1 should be complete"),
        (["rollback"], 1, "should have a current bundle"),
    ],
)
def test_export_without_input_exits_with_a_message(
    words: list[str], status: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export_main([*words, "--bundles", str(tmp_path)]) == status
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "one of the arguments CHECKPOINT --latest is required"),
        (["a.pt", "--latest"], "not allowed with argument"),
        (["rollback", "v1"], "unrecognized arguments: v1"),
        (["a.pt", "b.pt"], "unrecognized arguments: b.pt"),
    ],
)
def test_contradictory_export_arguments_are_rejected(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        export_main(words)

    assert raised.value.code == 2
    assert sentence in capsys.readouterr().err


def test_an_interrupted_fit_resumes_from_its_state_file(
    examples_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs = list[int]()

    def interrupt_once(epoch: Epoch) -> None:
        epochs.append(epoch.number)
        if len(epochs) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr("training.report.progress.ProgressReporter.on_epoch", lambda _, epoch: interrupt_once(epoch))
    state_path = tmp_path / "state.pt"
    words = [
        "fit",
        OPTION,
        str(examples_file),
        "--bundles",
        str(tmp_path),
        "--epochs",
        "2",
        "--resume",
        str(state_path),
    ]

    with pytest.raises(KeyboardInterrupt):
        main(words)
    assert state_path.is_file()
    assert main(words) == 0

    assert epochs == [1, 2]
    assert Path(json.loads(capsys.readouterr().out)["checkpoint"]).is_file()
    assert not state_path.exists()


def test_fit_starts_from_a_trained_network(
    examples_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit_words = ["fit", OPTION, str(examples_file), "--bundles", str(tmp_path), "--epochs", "1"]
    assert main(fit_words) == 0
    former = json.loads(capsys.readouterr().out)["version"]

    assert main([*fit_words, "--from", former, "--carried", "free"]) == 0
    printed = json.loads(capsys.readouterr().out)
    checkpoint = read_checkpoint(checkpoint_path(tmp_path, printed["version"]))
    assert checkpoint.metadata.parent == former
    assert checkpoint.optimizer == {}
    assert checkpoint.replay_buffer
    assert export_main(["--latest", "--bundles", str(tmp_path)]) == 0

    assert main([*fit_words, "--from", former, "--carried", "frozen"]) == 1
    assert "Some task should be new" in capsys.readouterr().err
    assert main([*fit_words, "--from", "20990101-000000-000-00000000"]) == 1
    assert "should be a checkpoint" in capsys.readouterr().err


def test_fit_logs_a_json_object_for_each_epoch(
    examples_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "logs" / "fit.jsonl"
    for epochs in ("2", "1"):
        assert (
            main(["fit", OPTION, str(examples_file), "--bundles", str(tmp_path), "--epochs", epochs, "--log", str(log)])
            == 0
        )

    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 1]
    assert {"click", "fraud"} <= lines[0]["losses"].keys()
    assert f"epoch 2  score {lines[1]['score']:.4f}" in capsys.readouterr().err

    (tmp_path / "folder").mkdir()
    assert main(["fit", OPTION, str(examples_file), "--bundles", str(tmp_path), "--log", str(tmp_path / "folder")]) == 2
    assert "`--log` should be a file that can be written" in capsys.readouterr().err


def test_more_than_stream_rows_are_trained_on_in_chunks(
    examples_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOPSTREAM_TRAINING__STREAM_ROWS", "100")
    monkeypatch.setattr("training.commands.fit.read_files", None)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "one.parquet").hardlink_to(examples_file)

    assert main(["fit", OPTION, str(tmp_path / "files"), "--bundles", str(tmp_path), "--epochs", "1"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert export_main(["--latest", "--bundles", str(tmp_path)]) == 0

    checkpoint = read_checkpoint(checkpoint_path(tmp_path, printed["version"]))
    assert printed["evaluation"]["click"]["rows"] > 0
    assert checkpoint.replay_buffer
    assert len(read_interactions(checkpoint.interactions)) > 0
