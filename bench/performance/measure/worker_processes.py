"""Starts the processes under measurement and waits until they are ready."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Final

from demo.live.health_probe import HealthProbe
from devservers.process import ChildProcess, find_free_ports
from testkit.environment.run_environment import RunEnvironment

READY_TIMEOUT_S: Final = 120.0
NO_OVERRIDES: Final[Mapping[str, str]] = {}


def start_process(
    stack: ExitStack,
    environment: RunEnvironment,
    command: Sequence[str],
    log_name: str,
    *,
    overrides: Mapping[str, str] = NO_OVERRIDES,
    has_probe: bool = True,
) -> ChildProcess:
    """Start a command, stopped with `stack`; with `has_probe`, return when its readiness probe succeeds."""
    (port,) = find_free_ports(1)
    child = ChildProcess(
        command=command,
        output=environment.folder / f"{environment.prefix}{log_name}.log",
        environment={**environment.env_variables(), "SHOPSTREAM_WORKER__HTTP_PORT": str(port), **overrides},
    )
    child.start()
    stack.callback(child.stop)
    if has_probe:
        child.wait_until(HealthProbe(port).is_ready, timeout_s=READY_TIMEOUT_S)
    return child
