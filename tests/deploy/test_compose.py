"""docker-compose.yml is valid and matches the checkout."""

import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema

from contract.settings.monitor import MonitorConfig
from contract.settings.reading import Settings
from tests.checkout import ROOT
from tests.deploy.compose import read_document, read_services

OUR_SERVICES = sorted(name for name, service in read_services().items() if service.is_ours)


def find_mistakes(document: dict[str, Any]) -> list[str]:
    schema = get_builtin_schema("vendor.compose-spec")
    validator = jsonschema.validators.validator_for(schema)(schema)
    return [error.message for error in validator.iter_errors(document)]


def test_the_file_is_valid_by_the_compose_specification() -> None:
    assert find_mistakes(read_document()) == []


@pytest.mark.parametrize(
    ("key", "value"), [("restarts", "always"), ("ports", 9100), ("depends_on", {"kafka": {"condition": "alive"}})]
)
def test_the_schema_detects_a_mistake(key: str, value: object) -> None:
    document = read_document()
    document["services"]["orders"][key] = value

    assert find_mistakes(document)


def test_the_services_run_every_process_and_its_servers() -> None:
    commands = {name: " ".join(read_services()[name].command) for name in OUR_SERVICES}

    assert commands == {
        "orders": "python -m worker score --lane orders",
        "browsing": "python -m worker score --lane browsing",
        "joiner": "python -m worker feedback",
        "learner": "python -m training follow",
        "monitor": "python -m training watch",
        "topics": "python -m worker topics",
    }
    assert read_services().keys() - commands.keys() == {"kafka", "redis", "prometheus"}


def test_only_learner_and_monitor_need_a_profile() -> None:
    services = read_document()["services"]

    assert {name for name, service in services.items() if "profiles" in service} == {"learner", "monitor"}


@pytest.mark.parametrize("name", OUR_SERVICES)
def test_the_environment_of_our_services_is_valid(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # given the service's environment and the checkout's configuration
    monkeypatch.chdir(ROOT)
    for key, value in read_services()[name].environment.items():
        monkeypatch.setenv(key, value)

    # when the settings are read
    settings = Settings()

    # then they are those of the compose file
    assert settings.kafka.bootstrap_servers == "kafka:9092"
    assert settings.redis.url == "redis://redis:6379/0"
    assert settings.bundles == Path("/bundles")


@pytest.mark.parametrize("name", ["orders", "browsing", "joiner"])
def test_a_worker_is_healthy_when_it_is_ready(name: str) -> None:
    check = " ".join(read_document()["services"][name]["healthcheck"]["test"])

    assert f"http://localhost:{Settings().worker.http_port}/readyz" in check


def test_our_services_wait_for_topics_and_topics_for_kafka() -> None:
    services = read_document()["services"]

    assert services["topics"]["depends_on"] == {"kafka": {"condition": "service_healthy"}}
    for name in set(OUR_SERVICES) - {"topics"}:
        assert services[name]["depends_on"]["topics"] == {"condition": "service_completed_successfully"}


def test_mounted_folders_and_volumes_exist() -> None:
    document = read_document()
    mounts = [mount for service in document["services"].values() for mount in service.get("volumes", [])]

    for source in (mount.split(":")[0] for mount in mounts):
        assert (ROOT / source).is_dir() if source.startswith(".") else source in document["volumes"]


def test_third_party_images_have_a_pinned_version() -> None:
    for service in read_document()["services"].values():
        assert "build" in service or re.search(r":v?\d", service["image"])


def test_service_addresses_name_existing_services() -> None:
    services = read_services()

    for name in OUR_SERVICES:
        environment = services[name].environment
        assert environment["SHOPSTREAM_KAFKA__BOOTSTRAP_SERVERS"].split(":")[0] in services
        assert re.match(r"redis://([a-z]+):6379/0", environment["SHOPSTREAM_REDIS__URL"])[1] in services  # type: ignore[index]


def test_redis_never_evicts() -> None:
    assert "--maxmemory-policy noeviction" in " ".join(read_services()["redis"].command)


def test_a_service_with_other_addresses_keeps_its_command() -> None:
    service = read_services()["orders"]
    relocated = service.with_addresses(kafka="127.0.0.1:1", redis="redis://127.0.0.1:2/0", bundles=Path("elsewhere"))

    assert relocated.command == service.command
    assert set(relocated.environment.values()) == {"127.0.0.1:1", "redis://127.0.0.1:2/0", "elsewhere"}


def test_prometheus_scrapes_existing_services_on_their_port() -> None:
    folder = ROOT / "deploy" / "prometheus"
    config = yaml.safe_load((folder / "prometheus.yml").read_text())

    (discovery,) = [sd for job in config["scrape_configs"] for sd in job["dns_sd_configs"]]
    assert set(discovery["names"]) <= set(OUR_SERVICES)
    assert discovery["port"] == Settings().worker.http_port == MonitorConfig().http_port
    assert all((folder / rules).is_file() for rules in config["rule_files"])
