"""The name under which a process is a static member of its group, the ids that the broker gives it, and fences.

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


class MemberId:
    """The id of the member that the present partitions were assigned to: the broker gives one for each time it joins.

    librdkafka may join again and keep its partitions without a callback: where a member ran out of its session after
    it had joined a rebalance and before it learned of its partitions. Others have read and committed these since then,
    and the broker would take a commit of the new member that sets their offsets back.
    """

    def __init__(self) -> None:
        self._assigned = ""

    def forget(self) -> None:
        """No partition is assigned."""
        self._assigned = ""

    def is_kept(self, current: str | None) -> bool:
        """Whether the partitions are those of the current member; the first one after `forget` is. None joins now."""
        if current and not self._assigned:
            self._assigned = current
        return current == self._assigned
