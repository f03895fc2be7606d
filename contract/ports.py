"""The port on which a process serves its probes and metrics: the one of its settings, or the next that is free."""

import errno
import logging
from collections.abc import Callable
from typing import Final, TypeVar

from contract.errors import BadConfig

T = TypeVar("T")
log = logging.getLogger(__name__)
TRIED: Final = 20  # ports, from the one of the settings on
PORT_MAX: Final = 65_535


def serve_on_free_port(setting: str, port: int, bind: Callable[[int], T]) -> T:
    """What `bind` returns for `port` (0: any free one), or for the first of the next ones that no process has.

    Raises `BadConfig`, which names the setting and the port, if there is none, or the port is not permitted.
    """
    last = min(port + TRIED - 1, PORT_MAX) if port else 0
    for candidate in range(port, last + 1):
        try:
            server = bind(candidate)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                continue
            raise BadConfig(
                [f"`{setting}` should be a port that this user may listen on. Found {port}: {error}."]
            ) from error
        if candidate != port:
            log.warning("`%s` should be free. Found port %d in use: serving on port %d.", setting, port, candidate)
        return server
    raise BadConfig([f"`{setting}` should be free, or one of the ports after it. Found {port} to {last} in use."])
