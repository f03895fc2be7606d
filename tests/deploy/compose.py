"""docker-compose.yml as data: the command and environment of each service.

Tests run the services without Docker: as processes with the same command and environment, but with the addresses of
servers on this machine.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from tests.checkout import ROOT

COMPOSE_FILE = ROOT / "docker-compose.yml"


@dataclass(frozen=True, slots=True)
class Service:
    """One service with its command and environment variables."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_ours(self) -> bool:
        """Whether it runs this checkout, rather than a third-party server."""
        return self.command[:2] == ("python", "-m")

    def with_addresses(self, *, kafka: str, redis: str, bundles: Path) -> "Service":
        """The same service with other addresses: a bootstrap list, a URL, a folder."""
        addresses = {
            "SHOPSTREAM_KAFKA__BOOTSTRAP_SERVERS": kafka,
            "SHOPSTREAM_REDIS__URL": redis,
            "SHOPSTREAM_BUNDLES": str(bundles),
        }
        return replace(self, environment={**self.environment, **addresses})


def read_document() -> dict[str, Any]:
    """The whole file, with its anchors and merges resolved."""
    document: dict[str, Any] = yaml.safe_load(COMPOSE_FILE.read_text())
    return document


def read_services() -> dict[str, Service]:
    """Every service by name, including those in profiles."""
    services = read_document()["services"]
    return {name: _parse_service(name, description) for name, description in services.items()}


def _parse_service(name: str, description: Mapping[str, Any]) -> Service:
    command = description.get("command", [])
    arguments = shlex.split(command) if isinstance(command, str) else command
    environment = {key: str(value) for key, value in description.get("environment", {}).items()}
    return Service(name=name, command=tuple(arguments), environment=environment)
