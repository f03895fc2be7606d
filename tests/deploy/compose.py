"""docker-compose.yml as a test sees it: what each service runs, and in which environment.

Docker need not be at hand: the same commands with the same environment are processes too, once the addresses are those
of servers on this machine.
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
    """One service: `command` as it would be executed, `environment` as it would be set."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_ours(self) -> bool:
        """Whether it runs this checkout, rather than somebody's server."""
        return self.command[:2] == ("python", "-m")

    def with_addresses(self, *, kafka: str, redis: str, bundles: Path) -> "Service":
        """The same service with the addresses of other servers: a bootstrap list, a URL, a folder."""
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
    """Every service by name, those of profiles too."""
    services = read_document()["services"]
    return {name: _parse_service(name, described) for name, described in services.items()}


def _parse_service(name: str, description: Mapping[str, Any]) -> Service:
    command = description.get("command", [])
    arguments = shlex.split(command) if isinstance(command, str) else command
    environment = {key: str(value) for key, value in description.get("environment", {}).items()}
    return Service(name=name, command=tuple(arguments), environment=environment)
