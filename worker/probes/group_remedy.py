"""What a worker does by itself about partitions that stand: it asks for a rebalance, or joins with a new client.

A client keeps the latest leader epoch of each partition, and takes a lower one for outdated. Those of a topic that was
deleted and recreated begin at 0 again: after any change of leaders the client never reads the new topic, and the group
learns of nothing. See https://github.com/confluentinc/librdkafka/issues/4898.
"""

import time
from collections.abc import Callable
from typing import Final

from worker.group.consumer import GroupConsumer
from worker.probes.watchdog import Watchdog

INTERVAL_S: Final = 30.0  # between two remedies of one kind: each needs some time to work
# A new client costs the records that the former one had fetched, and a rebalance. Where a machine is too busy to fetch
# all partitions in time, clients that come again and again make it later still.
CLIENT_INTERVAL_MAX_S: Final = 480.0


class GroupRemedy:
    """Applies the remedies of one worker, between two batches."""

    def __init__(
        self,
        watchdog: Watchdog,
        *,
        asks_for_rebalance: bool = True,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`asks_for_rebalance`: of a cooperative group, whose members may have restarted between its two rounds."""
        self._watchdog, self._asks_for_rebalance, self._clock_s = watchdog, asks_for_rebalance, clock_s
        self._rebalance_due_s = self._client_due_s = 0.0
        self._client_interval_s = INTERVAL_S  # doubled by each new client that has not helped
        self._recreated_until_s = clock_s()

    def apply(self, consumer: GroupConsumer) -> None:
        """Ask for a rebalance where partitions have no member, replace a client that may not return records."""
        now_s = self._clock_s()
        self._watchdog.note_denial(consumer.denial)
        if self._asks_for_rebalance and now_s >= self._rebalance_due_s and self._watchdog.needs_rebalance():
            self._rebalance_due_s = now_s + INTERVAL_S
            consumer.request_rebalance("some of its partitions have no member.")
        if now_s < self._client_due_s:
            return
        if recreated_s := self._watchdog.find_recreated(self._recreated_until_s):
            self._recreated_until_s = max(recreated_s.values())
            self._client_due_s = now_s + INTERVAL_S
            names = ", ".join(f"`{topic}`" for topic in sorted(recreated_s))
            consumer.replace_client(f"recreated since it joined: {names}, which its client may not read")
        elif unread := self._watchdog.find_unread():
            self._client_due_s = now_s + self._client_interval_s
            self._client_interval_s = min(2 * self._client_interval_s, CLIENT_INTERVAL_MAX_S)
            consumer.replace_client(f"this client returns no records: {unread}")
        elif now_s >= self._client_due_s + 2 * INTERVAL_S + self._watchdog.blocked_s:
            # A partition counts as unread only after it has stood for some time.
            self._client_interval_s = INTERVAL_S
