"""Settings: one file, the environment takes precedence, and all errors are reported at once."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import msgspec
import pytest

from contract.errors import BadConfig
from contract.features.declaration import GROUPS
from contract.settings.model import ModelConfig
from contract.settings.monitor import MonitorConfig
from contract.settings.reading import Settings, read_settings
from contract.settings.servers import TopicSettings
from contract.settings.tasks import read_tasks
from contract.settings.training import TrainingConfig
from contract.tasks import Task
from tests.checkout import ROOT

Write: TypeAlias = Callable[[str], None]

FRAUD = '[[tasks]]\nname = "fraud"\nkind = "binary"\ngroups = ["user"]\ngraph = "decide"'
CHARGEBACK = FRAUD.replace('"fraud"', '"chargeback"') + '\nthrough = "fraud"'


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Makes a text the configuration, with the features of `features.toml`."""
    path = tmp_path / "shop.toml"
    monkeypatch.setenv("SHOPSTREAM_CONFIG", str(path))
    monkeypatch.setenv("SHOPSTREAM_FEATURES", str(ROOT / "features.toml"))

    def write_text(text: str) -> None:
        path.write_text(text)

    return write_text


def read_errors() -> list[str]:
    with pytest.raises(BadConfig) as caught:
        read_settings()
    return caught.value.errors


def test_shop_toml_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    monkeypatch.setenv("SHOPSTREAM_CONFIG", str(ROOT / "shop.toml"))
    monkeypatch.chdir(ROOT)
    # when
    settings, features = read_settings()
    # then
    assert {task.name for task in settings.tasks} >= {"click", "purchase", "fraud", "relevance", "category"}
    assert all(rule.feature in features.digests for rule in settings.rules)


def test_an_empty_file_gives_the_defaults(write: Write) -> None:
    write("")
    settings, _ = read_settings()
    assert settings.kafka.bootstrap_servers == "localhost:9092"
    assert settings.topics.topic_name("clicks") == "shop.clicks"
    assert settings.topics.kinds_by_topic()["shop.orders"] == "orders"
    assert (settings.model, settings.training, settings.watch) == (ModelConfig(), TrainingConfig(), MonitorConfig())


def test_topic_names_by_kind_leave_prefix_and_number_of_partitions_out() -> None:
    names = TopicSettings(clicks="c", partitions=9).names_by_kind()
    assert names["clicks"] == "c"
    assert names.keys() == TopicSettings.model_fields.keys() - {"prefix", "partitions"}


def test_a_prefix_names_every_topic_that_has_no_name_of_its_own(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    write("[topics]\nprefix = 'north.'\norders = 'orders-v2'\n")
    monkeypatch.setenv("SHOPSTREAM_TOPICS__CLICKS", "web.clicks")
    # when
    names = read_settings()[0].topics.names_by_kind()
    # then
    named = (names.pop("orders"), names.pop("clicks"))
    assert named == ("orders-v2", "web.clicks")
    assert names["dead_letters"] == "north.dead-letters"
    assert all(name.startswith("north.") for name in names.values())


@pytest.mark.parametrize("name", ["", "shop/orders", "shop orders", "bestellungen-\u00fc", ".", "x" * 250])
def test_a_name_that_no_topic_can_have_is_refused(name: str, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write("")
    monkeypatch.setenv("SHOPSTREAM_TOPICS__ORDERS", name)
    (error,) = read_errors()
    assert error.startswith("`topics.orders` should be the name of a topic: 1 to 249 letters")


def test_a_prefix_that_no_topic_can_have_is_refused_once(write: Write) -> None:
    write('topics.prefix = "north/"')
    assert read_errors() == [
        "`topics.prefix` should be how names of topics begin: letters, digits, dots, `_` and `-`. Found 'north/'."
    ]


def test_a_prefix_of_keys_that_scatters_them_over_a_cluster_is_refused(write: Write) -> None:
    write('redis.prefix = "{north}:"')
    assert read_errors() == [
        "`redis.prefix` should have no braces, which decide where a Redis Cluster keeps a key. Found '{north}:'."
    ]


def test_a_wrong_choice_is_refused_with_the_nearest(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write("[thresholds.fraud]\nreveiw = 0.08")
    monkeypatch.setenv("SHOPSTREAM_WORKER__ON_LOST_LOG", "stopp")
    assert read_errors() == [
        "`worker.on_lost_log` should be 'stop' or 'accept'. Found 'stopp'; the nearest is `stop`.",
        "`thresholds.fraud.reveiw` should be 'review' or 'decline'. Found 'reveiw'; the nearest is `review`.",
    ]


def test_relative_paths_are_relative_to_the_file(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given a file that another folder's process names
    write("bundles = 'models'\n[feedback]\nstore = 'rows'\n")
    (tmp_path / "features.toml").write_text("")
    monkeypatch.delenv("SHOPSTREAM_FEATURES")
    monkeypatch.chdir("/")
    # when
    settings, features = read_settings()
    # then
    assert (settings.bundles, settings.feedback.store) == (tmp_path / "models", str(tmp_path / "rows"))
    assert not features.features


def test_files_that_clients_read_are_relative_to_the_file_of_settings(write: Write, tmp_path: Path) -> None:
    # given
    write(
        """
        [kafka.client]
        "ssl.ca.location" = "ca.pem"
        "ssl.key.location" = "/keys/key.pem"
        "sasl.kerberos.keytab" = "shop.keytab"
        "https.ca.location" = "probe"
        "ssl.crl.location" = ""
        "client.id" = "shop"
        [registry.client]
        "ssl.certificate.location" = "tls/shop.pem"
        "ssl.ca.location" = false
        """
    )
    # when
    settings, _ = read_settings()
    # then
    assert settings.kafka.client == {
        "ssl.ca.location": str(tmp_path / "ca.pem"),
        "ssl.key.location": "/keys/key.pem",
        "sasl.kerberos.keytab": str(tmp_path / "shop.keytab"),
        "https.ca.location": "probe",
        "ssl.crl.location": "",
        "client.id": "shop",
    }
    assert settings.registry.client == {
        "ssl.certificate.location": str(tmp_path / "tls" / "shop.pem"),
        "ssl.ca.location": False,
    }


def test_absolute_paths_and_an_absent_store_stay_as_they_are(write: Write, tmp_path: Path) -> None:
    write("bundles = '/models'\n[feedback]\nstore = ''\n")
    settings, _ = read_settings()
    assert (settings.bundles, settings.feedback.store) == (Path("/models"), "")


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("SHOPSTREAM_REDIS_URL", "SHOPSTREAM_REDIS__URL"),
        ("SHOPSTREAM_BUNDLE", "SHOPSTREAM_BUNDLES"),
        ("SHOPSTREAM_WROKER__BATCH_MAX", "SHOPSTREAM_WORKER__BATCH_MAX"),
        ("shopstream_kafka_bootstrap_servers", "SHOPSTREAM_KAFKA__BOOTSTRAP_SERVERS"),
        ("SHOPSTREAM_CONFIGURATION", "SHOPSTREAM_CONFIG"),
        ("SHOPSTREAM_BUNDLES__FOLDER", "SHOPSTREAM_BUNDLES"),
    ],
)
def test_a_variable_that_sets_nothing_is_refused_with_the_nearest_name(
    write: Write, monkeypatch: pytest.MonkeyPatch, variable: str, nearest: str
) -> None:
    write("")
    monkeypatch.setenv(variable, "x")
    (error,) = read_errors()
    assert f"`{variable}`" in error
    assert error.endswith(f"the nearest is `{nearest}`.")


def test_variables_of_settings_and_of_development_are_accepted(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write("")
    for name, value in {"SEED": "7", "DATA": "x", "CACHE": "x", "THRESHOLDS__FRAUD__REVIEW": "0.2"}.items():
        monkeypatch.setenv(f"SHOPSTREAM_{name}", value)
    assert read_settings()[0].thresholds == {"fraud": {"review": 0.2}}


def test_a_review_above_its_decline_is_refused(write: Write) -> None:
    write("[thresholds.fraud]\nreview = 0.9\ndecline = 0.8")
    assert read_errors() == ["`thresholds.fraud.review` should be no more than its `decline`, 0.8. Found 0.9."]


def test_a_wrong_value_is_not_its_own_nearest(write: Write) -> None:
    write('intake.private_networks = ["10.0.0.0/33"]')
    (error,) = read_errors()
    assert error.startswith("`intake.private_networks.0` should be a network such as 10.0.0.0/8")
    assert error.endswith(". Found '10.0.0.0/33'.")


def test_misspelt_names_of_all_kinds_are_reported_at_once_with_the_nearest(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    monkeypatch.setenv("SHOPSTREAM_REDIS_URL", "redis://elsewhere")
    write(
        f"[thresholds.fruad]\nreview = 0.5\n[thresholds.fraud]\nreveiw = 0.08\n[worker]\nbatch_mx = 3\n{FRAUD}\n"
        "[[rules]]\nfeature = 'order_amuont'\nabove = 1\naction = 'review'\nreason = 'r'\n"
    )
    # when
    text = " ".join(read_errors())
    # then
    for nearest in ("SHOPSTREAM_REDIS__URL", "fraud", "batch_max", "order_amount"):
        assert f"the nearest is `{nearest}`" in text
    assert "`thresholds.fraud.reveiw` should be 'review' or 'decline'" in text


@pytest.mark.parametrize(
    "url", ["localhost:6379", "http://localhost", "redis:localhost", "redis://h:port", "redis://h/x"]
)
def test_an_address_of_redis_that_no_client_takes_is_refused(write: Write, url: str) -> None:
    write(f"redis.url = '{url}'")
    (error,) = read_errors()
    assert error.startswith("`redis.url` should ")


def test_a_refused_address_is_reported_without_its_password(write: Write) -> None:
    write("redis.url = 'user:secret@host:6379'")
    assert "secret" not in "".join(read_errors())


@pytest.mark.parametrize(
    "url", ["redis://h", "rediss://u:p@h:6380/2", "unix:///run/redis.sock?db=1", "redis://[::1]:1/0"]
)
def test_addresses_that_a_client_takes_are_accepted(write: Write, url: str) -> None:
    write(f"redis.url = '{url}'")
    assert read_settings()[0].redis.url == url


def test_the_environment_takes_precedence_over_the_file(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    write("[worker]\nbatch_max = 7\nwait_ms = 9\n[kafka]\nbootstrap_servers = 'file:1'\n[model]\ntower = 8\n")
    monkeypatch.setenv("SHOPSTREAM_WORKER__BATCH_MAX", "50")
    monkeypatch.setenv("SHOPSTREAM_KAFKA__CLIENT", '{"security.protocol": "SSL"}')
    monkeypatch.setenv("SHOPSTREAM_MODEL__HIDDEN", "32")
    monkeypatch.setenv("SHOPSTREAM_WATCH__ROLLBACK", "0")
    # when
    settings, _ = read_settings()
    # then
    assert (settings.worker.batch_max, settings.worker.wait_ms) == (50, 9)
    assert settings.kafka.bootstrap_servers == "file:1"
    assert settings.kafka.client == {"security.protocol": "SSL"}
    assert settings.model == ModelConfig(hidden=32, tower=8)
    assert settings.watch == MonitorConfig(rollback=False)


def test_wrong_values_of_all_sections_are_reported_at_once(write: Write) -> None:
    # given
    write(
        """
        [worker]
        batch_max = 0
        nope = 1
        [redis]
        timeout_s = -1
        [kafka]
        transactions = 'perhaps'
        [model]
        hiden = 3
        [training]
        held_out = 1.5
        [watch]
        looks = 3
        [unknown]
        """
    )
    # when
    actual = read_errors()
    # then
    named = {"worker.batch_max", "worker.nope", "redis.timeout_s", "kafka.transactions", "unknown"}
    named |= {"model.hiden", "training.held_out", "watch.looks"}
    assert {error.split("`")[1] for error in actual} == named


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("model.hidden = 0", "`model.hidden` should be greater than or equal to 1. Found 0."),
        ("training.jump = 1", "`training.jump` should be greater than 1. Found 1."),
        ("watch.http_port = 70000", "`watch.http_port` should be less than or equal to 65535. Found 70000."),
        ("training.device = 'tpu'", "`training.device` should be 'cpu' or 'cuda'. Found 'tpu'; the nearest is `cpu`."),
        ("watch.pause = 1", "`watch.pause` should be one of the settings http_port, pause_s, portion, "),
        ("rules = [{above = 1}]", "`rules.0.feature` should be given. Found {'above': 1}."),
        (
            "rules = [{over = 1}]",
            "`rules.0.over` should be one of the settings feature, above, below, equals, action, reason. ",
        ),
        ("wacth = 1", "`wacth` should be one of the settings kafka, redis, topics, intake, worker, lists, feedback, "),
    ],
)
def test_an_error_names_the_setting_and_what_it_accepts(write: Write, text: str, error: str) -> None:
    write(text)
    assert any(actual.startswith(error) for actual in read_errors())


@pytest.mark.parametrize(
    ("section", "values"),
    [
        (ModelConfig, [{"hiden": 3}, {"hidden": 0}, {"hidden": "many"}, {"factors": -1}, {"rows": 8}]),
        (ModelConfig, [{"levels": 9}, {"dropout": 1.0}, {"dropout": float("nan")}, {"members": 65}, {"bins": 257}]),
        (TrainingConfig, [{"epochs": -1}, {"epochs": True}, {"held_out": 1}, {"update_rate": 1.01}, {"jump": 1}]),
        (TrainingConfig, [{"margin": float("nan")}, {"precision": "float16"}, {"learning_rate": 0}, {"plan": 1}]),
        (MonitorConfig, [{"looks": 3}, {"risk": 2.0}, {"block": 5}, {"rows_min": 99}, {"rollback": "perhaps"}]),
    ],
)
def test_values_outside_a_section_s_limits_are_refused(
    section: type[ModelConfig | TrainingConfig | MonitorConfig], values: list[dict[str, object]]
) -> None:
    for value in values:
        with pytest.raises(ValueError, match=r"1 validation error"):
            section.model_validate(value)


def test_all_mistakes_between_values_are_reported_at_once(write: Write) -> None:
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
    for words in ("no longer", "a topic of its own", "`colour`", "names of their own", "'look'", "moon"):
        assert words in actual


def test_one_mistake_in_every_section_gives_all_errors_in_order(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    monkeypatch.setenv("SHOPSTREAM_FEATURES", "nowhere.toml")
    write(
        """
        unknown = 1
        bundles = 3
        [watch]
        rollback = "perhaps"
        [training]
        held_out = 1.5
        [model]
        hidden = 0
        [thresholds.fraud]
        review = 1.5
        approve = 0.1
        decline = true
        [thresholds.frod]
        review = 0.5
        [[tasks]]
        name = "fraud"
        kind = "binry"
        groups = ["user", "moon"]
        graph = "decide"
        through = "look"
        weight = -1
        experts = [true]
        [[tasks]]
        kind = "binary"
        groups = "user"
        graph = "decide"
        [[tasks]]
        name = "fraud"
        kind = "binary"
        groups = ["user"]
        graph = "decide"
        [[rules]]
        feature = "order_amount"
        above = 1
        action = "approve"
        reason = "r"
        [log]
        level = "loud"
        [feedback]
        rows_max = 0
        [lists]
        length = 200
        [worker]
        batch_max = 0
        [topics]
        clicks = "shop.orders"
        [redis]
        timeout_s = -1
        [kafka]
        transactions = "perhaps"
        """
    )
    # when
    actual = read_errors()
    # then
    sections = (
        "kafka, redis, topics, intake, worker, lists, feedback, log, placements, experiments, entities, rules, tasks, "
        "thresholds, model, training, watch, map, registry, bundles, bundle_store, features"
    )
    table = {"kind": "binary", "groups": "user", "graph": "decide"}
    topics = sorted(TopicSettings(clicks="shop.orders").names_by_kind().values())
    assert actual == [
        "`kafka.transactions` should be a valid boolean, unable to interpret input. Found 'perhaps'.",
        "`redis.timeout_s` should be greater than 0. Found -1.",
        "`worker.batch_max` should be greater than 0. Found 0.",
        "`feedback.rows_max` should be greater than 0. Found 0.",
        "`log.level` should be 'debug', 'info', 'warning' or 'error'. Found 'loud'.",
        "`rules.0.action` should be 'review' or 'decline'. Found 'approve'.",
        "`tasks.0.kind` of task `fraud` should be 'binary', 'graded', 'multiclass' or 'regression'. Found 'binry'; the "
        "nearest is `binary`.",
        f"`tasks.0.groups` of task `fraud` should be groups among {', '.join(GROUPS)}. Found ['user', 'moon'].",
        "`tasks.0.through` of task `fraud` should be a declared task. Found 'look'.",
        "`tasks.0.weight` of task `fraud` should be greater than or equal to 0. Found -1.",
        "`tasks.0.experts.0` of task `fraud` should be a valid integer. Found True.",
        f"`tasks.1.name` should be given. Found {table}.",
        "`tasks.1.groups` should be a valid tuple. Found 'user'.",
        "`thresholds.fraud.review` should be less than or equal to 1. Found 1.5.",
        "`thresholds.fraud.approve` should be 'review' or 'decline'. Found 'approve'.",
        "`thresholds.fraud.decline` should be a number. Found True.",
        "`model.hidden` should be greater than or equal to 1. Found 0.",
        "`training.held_out` should be less than 1. Found 1.5.",
        "`watch.rollback` should be a valid boolean, unable to interpret input. Found 'perhaps'.",
        "`bundles` should be a path. Found 3.",
        f"`unknown` should be one of the settings {sections}. Found none of that name.",
        f"Each kind should have a topic of its own. Found {topics}.",
        "A list should be no longer than its candidates. Found it longer.",
        "Tasks should have names of their own. Found ['fraud', 'fraud'].",
        "`thresholds.frod` should be of a declared task: fraud. Found none of that name; the nearest is `fraud`.",
        f"nowhere.toml should declare features. Found: [Errno 2] No such file or directory: '{tmp_path}/nowhere.toml'",
    ]


def test_thresholds_without_declared_tasks_are_for_the_tasks_of_a_bundle(write: Write) -> None:
    write("[thresholds.fraud]\nreview = 0\ndecline = 1")
    assert read_settings()[0].thresholds == {"fraud": {"review": 0, "decline": 1}}


def test_thresholds_of_an_undeclared_task_are_refused(write: Write) -> None:
    write(f"[thresholds.frod]\nreview = 0.5\n{FRAUD}")
    assert read_errors() == [
        "`thresholds.frod` should be of a declared task: fraud. Found none of that name; the nearest is `fraud`."
    ]


@pytest.mark.parametrize(
    ("kind", "graph"),
    [("binary", "recommend"), ("graded", "search"), ("multiclass", "decide"), ("regression", "decide")],
)
def test_a_threshold_that_decides_no_order_is_refused(write: Write, kind: str, graph: str) -> None:
    write(f'[thresholds.x]\nreview = 0.1\n[[tasks]]\nname = "x"\nkind = "{kind}"\ngroups = []\ngraph = "{graph}"')
    assert read_errors() == [
        f"`thresholds.x` should be of a binary or graded task of graph decide. Found a {kind} task of graph {graph}."
    ]


@pytest.mark.parametrize("kind", ["binary", "graded"])
def test_a_threshold_for_a_probability_of_orders_is_accepted(write: Write, kind: str) -> None:
    write(f"[thresholds.fraud]\nreview = 0.1\n{FRAUD.replace('binary', kind)}")
    assert read_settings()[0].thresholds == {"fraud": {"review": 0.1}}


@pytest.mark.parametrize(
    ("bounds", "error"),
    [
        ("above = 10, below = 5", "`rules.0` should have an `above` that is less than its `below`. Found "),
        ("above = 5, below = 5", "`rules.0` should have an `above` that is less than its `below`. Found "),
        ("above = nan", "`rules.0.above` should be a finite number. Found nan."),
        ("above = 1, below = inf", "`rules.0.below` should be a finite number. Found inf."),
    ],
)
def test_a_rule_that_no_number_can_meet_is_refused(write: Write, bounds: str, error: str) -> None:
    write(f"rules = [{{feature = 'order_amount', {bounds}, action = 'review', reason = 'r'}}]")
    assert [text[: len(error)] for text in read_errors()] == [error]


def test_a_task_with_a_wrong_value_still_counts_as_declared(write: Write) -> None:
    write(f"[thresholds.fraud]\nreview = 0.5\n{FRAUD}\nweight = -1\n{CHARGEBACK}")
    assert read_errors() == ["`tasks.0.weight` of task `fraud` should be greater than or equal to 0. Found -1."]


@pytest.mark.parametrize(
    ("name", "accepted", "refused"),
    [
        ("weight", [0, 0.5], [-0.1, "1", True]),
        ("negative_rate", [0.01, 1], [0, 1.01]),
        ("experts", [[], [0, 7]], [[-1], [True], 3]),
        ("hide", [[], ["item_id"]], ["item_id", [1]]),
    ],
)
def test_settings_accept_the_tasks_that_a_manifest_accepts(
    name: str, accepted: list[object], refused: list[object]
) -> None:
    table = {"name": "fraud", "kind": "binary", "groups": ["user"], "graph": "decide"}
    for value in accepted:
        assert read_tasks([{**table, name: value}]) == (msgspec.convert({**table, name: value}, Task),)
    for value in refused:
        with pytest.raises(ValueError, match=name):
            read_tasks([{**table, name: value}])
        with pytest.raises(msgspec.ValidationError, match=name):
            msgspec.convert({**table, name: value}, Task)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = [", "should be TOML"),
        ("tasks = 3", "tasks"),
        ("worker = 3", "worker"),
        ("[[tasks]]\nname = 'a'", "`tasks.0.kind` of task `a` should be given"),
        ("[[tasks]]\nname='a'\nkind='binary'\ngroups=[]\ngraph='recommend'\ncolour=1", "colour"),
        ("[[rules]]\nfeature = 'order_amount'\nabove = 1\naction = 'approve'\nreason = ''", "rules.0.action"),
        ("[thresholds.fraud]\nreview = 'high'", "thresholds.fraud.review"),
        ("thresholds = 3", "thresholds"),
    ],
)
def test_an_invalid_file_is_reported_with_its_reason(write: Write, text: str, words: str) -> None:
    write(text)
    assert words in " ".join(read_errors())


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("SHOPSTREAM_WORKER__HTTP_PORT", "70000", "worker.http_port"),
        ("SHOPSTREAM_WORKER__NOPE", "1", "worker.nope"),
        ("SHOPSTREAM_MODEL__HIDDEN", "wide", "model.hidden"),
        ("SHOPSTREAM_WORKER", "not JSON", '"worker"'),
        ("SHOPSTREAM_KAFKA__CLIENT", "not JSON", '"kafka"'),
    ],
)
def test_an_invalid_environment_is_reported_with_its_reason(
    write: Write, monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    write("")
    monkeypatch.setenv(name, value)
    assert words in " ".join(read_errors())


def test_wrong_features_are_reported_together_with_wrong_values(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    write("[lists]\nlength = 200")
    monkeypatch.setenv("SHOPSTREAM_FEATURES", "nowhere.toml")
    # then
    assert len(read_errors()) == 2


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    # given a folder, or bytes that are not text
    path = tmp_path / "shop.toml"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    monkeypatch.setenv("SHOPSTREAM_CONFIG", str(path))
    # then
    assert "shop.toml" in read_errors()[0]


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    (tmp_path / "shop.toml").write_text("worker.batch_max = 7", "utf-8-sig")
    feature = '[[features]]\nname = "a"\ngroup = "order"\nkind = "number"\nsource = "event.amount"'
    (tmp_path / "features.toml").write_text(feature, "utf-8-sig")
    monkeypatch.setenv("SHOPSTREAM_CONFIG", str(tmp_path / "shop.toml"))
    # when
    settings, features = read_settings()
    # then
    assert settings.worker.batch_max == 7
    assert list(features.digests) == ["a"]


def test_a_missing_file_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOPSTREAM_CONFIG", str(tmp_path / "none.toml"))
    (error,) = read_errors()
    assert error.startswith(f"The configuration should be a file. Found none at {tmp_path / 'none.toml'}.")


def test_settings_cannot_be_changed(write: Write) -> None:
    write("")
    settings: Settings = read_settings()[0]
    with pytest.raises(ValueError, match="frozen"):
        settings.worker.batch_max = 3


MAP_OF_ORDERS = """
[map.shop]
topics = ["acme.orders"]
kind = "orders"
[map.shop.fields]
event_id = "id"
ts_ms = { path = "at", unit = "ms" }
user_id = "user"
amount = { path = "cents", unit = "minor" }
currency = "currency"
payment_method = "gateway"
[map.shop.fields.lines]
item_id = "l[].sku"
quantity = "l[].n"
unit_price = { path = "l[].cents", unit = "major" }
"""


def test_a_unit_that_both_a_map_and_the_intake_give_is_refused(write: Write) -> None:
    write(f'[intake]\nmoney = {{ orders = "minor" }}\ntimes = {{ orders = "us" }}\n{MAP_OF_ORDERS}')
    errors = read_errors()
    assert [error.split(" ")[0] for error in errors] == [
        "`map.shop.fields.ts_ms.unit`",
        "`map.shop.fields.amount.unit`",
        "`map.shop.fields.lines.unit_price.unit`",
    ]
    assert errors[1] == (
        "`map.shop.fields.amount.unit` should be given where `intake.money` has no unit of orders, since each "
        'converts. Found "minor", and `intake.money.orders = "minor"`: leave out one of them.'
    )


@pytest.mark.parametrize(
    "intake",
    [
        "",
        'money = { orders = "units" }',
        'money = { products = "minor" }\ntimes = { clicks = "s", orders = "ms" }',
        'times = { orders = "iso" }',
    ],
)
def test_a_unit_of_a_map_may_stand_with_an_intake_that_converts_nothing_of_its_kind(write: Write, intake: str) -> None:
    write(f"[intake]\n{intake}\n{MAP_OF_ORDERS}")
    settings, _ = read_settings()
    assert settings.map.keys() == {"shop"}
