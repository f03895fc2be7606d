"""Settings: one file, the environment above it, and every mistake told at once."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from contract.errors import BadConfig
from contract.settings import Settings, read_settings
from tests.checkout import ROOT

Write: TypeAlias = Callable[[str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Makes a text the configuration, with the shop's own features."""
    path = tmp_path / "shop.toml"
    monkeypatch.setenv("SHOPSTREAM_CONFIG", str(path))
    monkeypatch.setenv("SHOPSTREAM_FEATURES", str(ROOT / "features.toml"))
    return lambda text: make_void(path.write_text(text))


def make_void(_: object) -> None:
    return None


def read_errors() -> list[str]:
    with pytest.raises(BadConfig) as caught:
        read_settings()
    return caught.value.errors


def test_the_shops_own_file_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    monkeypatch.setenv("SHOPSTREAM_CONFIG", str(ROOT / "shop.toml"))
    monkeypatch.chdir(ROOT)
    # when
    settings, features = read_settings()
    # then
    assert {task.name for task in settings.tasks} >= {"click", "purchase", "fraud", "relevance", "category"}
    assert all(rule.feature in features.digests for rule in settings.rules)


def test_an_empty_file_means_the_defaults(write: Write) -> None:
    write("")
    settings, _ = read_settings()
    assert settings.kafka.bootstrap_servers == "localhost:9092"
    assert settings.topics.topic_name("clicks") == "shop.clicks"
    assert settings.topics.kinds_by_topic()["shop.orders"] == "orders"


def test_the_environment_wins_over_the_file(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    write("[worker]\nbatch_max = 7\nwait_ms = 9\n[kafka]\nbootstrap_servers = 'file:1'\n")
    monkeypatch.setenv("SHOPSTREAM_WORKER__BATCH_MAX", "50")
    monkeypatch.setenv("SHOPSTREAM_KAFKA__CLIENT", '{"security.protocol": "SSL"}')
    # when
    settings, _ = read_settings()
    # then
    assert (settings.worker.batch_max, settings.worker.wait_ms) == (50, 9)
    assert settings.kafka.bootstrap_servers == "file:1"
    assert settings.kafka.client == {"security.protocol": "SSL"}


def test_all_wrong_values_are_told_at_once(write: Write) -> None:
    # given
    write("[worker]\nbatch_max = 0\nnope = 1\n[redis]\ntimeout_s = -1\n[kafka]\ntransactions = 'perhaps'\n[unknown]\n")
    # when
    actual = read_errors()
    # then
    named = {"worker.batch_max", "worker.nope", "redis.timeout_s", "kafka.transactions", "unknown"}
    assert {error.split("`")[1] for error in actual} == named


def test_all_mistakes_between_values_are_told_at_once(write: Write) -> None:
    # given
    write(
        """
        [lists]
        length = 200
        [topics]
        clicks = "shop.orders"
        [[rules]]
        feature = "colour"
        above = 1
        action = "review"
        reason = "r"
        [[tasks]]
        name = "buy"
        kind = "binary"
        groups = ["moon"]
        graph = "recommend"
        through = "look"
        [[tasks]]
        name = "buy"
        kind = "binary"
        groups = ["user"]
        graph = "recommend"
        """
    )
    # when
    actual = " ".join(read_errors())
    # then
    for said in ("no longer", "a topic of its own", "`colour`", "names of their own", "`look`", "moon"):
        assert said in actual


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = [", "should be TOML"),
        ("tasks = 3", "tasks"),
        ("worker = 3", "worker"),
        ("[[tasks]]\nname = 'a'", "missing required field `kind`"),
        ("[[tasks]]\nname='a'\nkind='binary'\ngroups=[]\ngraph='recommend'\ncolour=1", "colour"),
        ("[[rules]]\nfeature = 'order_amount'\nabove = 1\naction = 'approve'\nreason = ''", "rules.0.action"),
        ("[thresholds.fraud]\nreview = 'high'", "thresholds.fraud.review"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(write: Write, text: str, said: str) -> None:
    write(text)
    assert said in " ".join(read_errors())


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("SHOPSTREAM_WORKER__HTTP_PORT", "70000", "worker.http_port"),
        ("SHOPSTREAM_WORKER__NOPE", "1", "worker.nope"),
        ("SHOPSTREAM_WORKER", "not JSON", '"worker"'),
        ("SHOPSTREAM_KAFKA__CLIENT", "not JSON", '"kafka"'),
    ],
)
def test_a_wrong_environment_says_what_is_wrong(
    write: Write, monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    write("")
    monkeypatch.setenv(name, value)
    assert said in " ".join(read_errors())


def test_wrong_features_are_told_beside_wrong_values(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    write("[lists]\nlength = 200")
    monkeypatch.setenv("SHOPSTREAM_FEATURES", "nowhere.toml")
    # then
    assert len(read_errors()) == 2


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    # given a folder, or no text
    path = tmp_path / "shop.toml"
    path.write_bytes(content) if content else path.mkdir()
    monkeypatch.setenv("SHOPSTREAM_CONFIG", str(path))
    # then
    assert "shop.toml" in read_errors()[0]


def test_a_missing_file_is_a_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOPSTREAM_CONFIG", str(tmp_path / "none.toml"))
    assert read_errors() == [f"The configuration should be a file. Found none at {tmp_path / 'none.toml'}."]


def test_settings_cannot_be_changed(write: Write) -> None:
    write("")
    settings: Settings = read_settings()[0]
    with pytest.raises(ValueError, match="frozen"):
        settings.worker.batch_max = 3
