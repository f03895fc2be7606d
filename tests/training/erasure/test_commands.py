"""Commands that read files of examples leave erased people out, as if the files did not have them."""

import json
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

from contract.errors import Unavailable
from contract.events.model import Erasure
from contract.history.format import HistoricEvent
from contract.profiles.erasures import Erasures
from contract.settings.reading import Settings
from model.checkpoint import checkpoint_path, hash_weights, read_checkpoint, write_checkpoint
from tests.model.small import FEATURES, SHAPE, TASKS
from tests.training.erasure.test_checkpoints import is_free, list_rows, make_checkpoint
from tests.training.examples import PLAN, make_examples
from tests.worker.events import make_click
from training.__main__ import parse_arguments
from training.commands import fit, replay
from training.commands.describe import run as describe
from training.data.examples import Examples
from training.data.parquet import write_examples
from training.erasure import arguments

EXAMPLES: Final = make_examples(400, 3)
UNTIL_MS: Final = int(EXAMPLES.ts_ms[300])
REST: Final = EXAMPLES.take((EXAMPLES.user_id != "u3") | (EXAMPLES.ts_ms > UNTIL_MS))
SETTINGS: Final = Settings(tasks=TASKS).model_copy(update={"model": SHAPE, "training": PLAN})
STREAMING: Final = SETTINGS.model_copy(update={"training": PLAN.model_copy(update={"stream_rows": 10})})


class FakeErasureTopic:
    """An erasures topic on which one person is erased from the n-th read on, n being `begin`."""

    reads, begin = 0, 0

    def __init__(self, **_: object) -> None:
        self.erasures = Erasures()

    def poll(self) -> bool:
        if type(self).reads >= self.begin:
            self.erasures.add(Erasure(event_id="e", user_id="u3", ts_ms=UNTIL_MS))
        type(self).reads += 1
        return True

    def close(self) -> None: ...


@pytest.fixture(autouse=True)
def topic(monkeypatch: pytest.MonkeyPatch) -> type[FakeErasureTopic]:
    """The topic, with the erasure on it from the beginning."""
    topic = type("Topic", (FakeErasureTopic,), {})
    monkeypatch.setattr(arguments, "ErasureTopic", topic)
    return topic


def write_file(folder: Path, name: str, examples: Examples) -> str:
    write_examples(folder / name, examples)
    return str(folder / name)


def run_fit(settings: Settings, folder: Path, *words: str, capsys: pytest.CaptureFixture[str]) -> Path:
    """The checkpoint that `fit` writes."""
    args = parse_arguments(["fit", "--bundles", str(folder / "bundles"), "--epochs", "1", *words])
    assert fit.run(args, settings, FEATURES) == 0
    return Path(json.loads(capsys.readouterr().out.splitlines()[-1])["checkpoint"])


def test_a_fit_learns_the_weights_that_it_would_learn_without_the_person(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, rest = write_file(tmp_path, "whole.pq", EXAMPLES), write_file(tmp_path, "rest.pq", REST)

    paths = [
        run_fit(SETTINGS, tmp_path, *words, capsys=capsys)
        for words in ((whole,), (rest, "--without-erasures"), (whole, "--without-erasures"))
    ]

    erased, expected, unerased = (read_checkpoint(path) for path in paths)
    assert hash_weights(erased.weights) == hash_weights(expected.weights) != hash_weights(unerased.weights)
    assert sorted(list_rows(erased)) == sorted(list_rows(expected)) != sorted(list_rows(unerased))


def test_a_streamed_fit_leaves_the_person_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, rest = write_file(tmp_path, "whole.pq", EXAMPLES), write_file(tmp_path, "rest.pq", REST)

    erased = read_checkpoint(run_fit(STREAMING, tmp_path, whole, capsys=capsys))
    expected = read_checkpoint(run_fit(STREAMING, tmp_path, rest, "--without-erasures", capsys=capsys))

    assert hash_weights(erased.weights) == hash_weights(expected.weights)
    assert sorted(list_rows(erased)) == sorted(list_rows(expected))


def test_a_person_who_is_erased_during_a_fit_is_not_in_its_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], topic: type[FakeErasureTopic]
) -> None:
    topic.begin = 1  # the second read

    path = run_fit(SETTINGS, tmp_path, write_file(tmp_path, "whole.pq", EXAMPLES), capsys=capsys)

    rows = list_rows(read_checkpoint(path))
    assert topic.reads == 2
    assert rows
    assert not [row for row in rows if row[0] == "u3" and row[1] <= UNTIL_MS]


def test_a_warm_start_does_not_take_the_person_from_the_former_buffer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    former = make_checkpoint()
    write_checkpoint(tmp_path / "bundles", former)
    assert not is_free(checkpoint_path(tmp_path / "bundles", former.metadata.version))
    others = write_file(tmp_path, "others.pq", EXAMPLES.take(EXAMPLES.user_id != "u3"))

    path = run_fit(SETTINGS, tmp_path, others, "--from", former.metadata.version, capsys=capsys)

    assert is_free(path)


def test_a_report_describes_the_others_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = parse_arguments(["describe", write_file(tmp_path, "whole.pq", EXAMPLES), "--out", str(tmp_path / "out")])

    assert describe(args, SETTINGS, FEATURES) == 0

    assert json.loads(capsys.readouterr().out.splitlines()[-1])["examples"] == len(REST)


def test_a_replay_skips_the_covered_events() -> None:
    events = [
        make_click(f"c-{user}-{ts_ms}", user=user, ts_ms=ts_ms)
        for user in ("u1", "u3")
        for ts_ms in (UNTIL_MS, UNTIL_MS + 1)
    ]
    topic = FakeErasureTopic()
    topic.poll()
    rejected = Counter[str]()

    actual = list(replay.drop_erased_events([HistoricEvent("clicks", e) for e in events], topic.erasures, rejected))

    assert [(historic.event.event_id) for historic in actual] == [e.event_id for e in events if e is not events[2]]
    assert rejected == {"of erased people": 1}


def test_without_kafka_a_command_names_the_option(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(topic: FakeErasureTopic) -> bool:
        raise Unavailable("Kafka should return the ends of topics. Found: no broker.")

    monkeypatch.setattr(FakeErasureTopic, "poll", fail)
    path = tmp_path / "x.parquet"
    write_examples(path, make_examples(10, 1))

    with pytest.raises(Unavailable, match=r"no broker\. .*`--without-erasures` uses all"):
        arguments.read_erasures(parse_arguments(["fit", str(path)]), SETTINGS)
