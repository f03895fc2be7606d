"""The name under which a process is a static member of its group, and whether another process has it too.

A broker that was away for longer than a session may fence a member although no other process exists: it answers an
earlier request of the same member late. So a fence says something of another process only if the broker was never away
since this member joined. Another living process joins again whenever it is fenced itself, so both are fenced in turn,
and the one that was fenced first reaches the limit first. The broker's description of the group cannot tell the two
cases apart: it names the client that had the name first.
"""

import time
from collections.abc import Callable
from typing import Final

from contract.errors import ShopstreamError

FENCES_MAX: Final = 3
WINDOW_S: Final = 60.0  # or two sessions, if they are longer; older fences do not count


class InstanceFenced(ShopstreamError):
    """Another process runs under this instance's name; this one ends."""


class InstanceName:
    """The ids of a process in its group, and when it was fenced."""

    def __init__(
        self, *, group: str, instance: str, session_s: float, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self.group, self.instance_id = group, f"{group}-{instance}"
        self._instance, self._clock_s = instance, clock_s
        self._window_s = max(WINDOW_S, 2 * session_s)
        self._fences_s: list[float] = []
        self._had_outage = False  # since the present client was created

    def record_client(self) -> None:
        """A new client will join under this name."""
        self._had_outage = False

    def record_outage(self) -> None:
        """The broker did not answer, or not in time; requests of this member may reach it late."""
        self._had_outage = True

    def record_fence(self) -> None:
        """Raise `InstanceFenced` if this member was fenced so often that another living process has its name."""
        if self._had_outage:
            self._fences_s.clear()
            return
        now_s = self._clock_s()
        self._fences_s = [fence_s for fence_s in self._fences_s if fence_s > now_s - self._window_s] + [now_s]
        if len(self._fences_s) >= FENCES_MAX:
            raise InstanceFenced(
                f"One process should run under the name of an instance. Found that another one joins {self.group} "
                f"with `worker.instance = {self._instance}` again and again."
            )
