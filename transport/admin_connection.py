"""An admin client that is replaced once it gets no answer."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from confluent_kafka.admin import AdminClient

from contract.settings.servers import KafkaSettings
from transport.client_errors import translate_errors
from transport.client_log import create_client

KEEP_S: Final = 60.0  # longer than any request waits
FORMER_CLIENTS_MAX: Final = 24  # of the process; each has a few threads


class FormerClients:
    """Clients that are no longer used, until none of their requests waits: freed earlier, librdkafka may crash."""

    def __init__(self, *, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._clients: deque[tuple[float, AdminClient]] = deque()
        self._lock = threading.Lock()

    def keep(self, client: AdminClient) -> bool:
        """Keep a client for `KEEP_S`; False if as many are kept as may be."""
        with self._lock:
            has_space = len(self._clients) < FORMER_CLIENTS_MAX
            if has_space:
                self._clients.append((self._clock_s() + KEEP_S, client))
        return has_space

    def free(self) -> None:
        """Free those that were kept long enough."""
        due = []
        with self._lock:
            while self._clients and self._clients[0][0] <= self._clock_s():
                due.append(self._clients.popleft())
        due.clear()  # which waits for threads of librdkafka


FORMER_CLIENTS: Final = FormerClients()  # of the process, since the owner of a client may be freed after an error


class AdminConnection:
    """Owns an admin client; a request that no broker answers is the last one of its client."""

    def __init__(self, *, kafka: KafkaSettings, overrides: Mapping[str, Any] | None = None) -> None:
        self._configuration: dict[str, Any] = {**kafka.connection(), "log_level": 3, **(overrides or {})}
        self._client = self._connect()

    @property
    def client(self) -> Any:
        """The client, after the lines of its log so far were written: only a poll does that."""
        FORMER_CLIENTS.free()
        self._client.poll(0)
        return self._client

    @contextmanager
    def request(self, action: str, client: Any = None) -> Iterator[Any]:
        """Send requests with the client, and wait for them; raises `Unavailable`: "Kafka should `action`".

        `client`: the one that has sent the request already.
        """
        client = self.client if client is None else client  # a client without queued events counts as False
        with translate_errors(action, lambda: self.replace(client)):
            yield client

    def replace(self, client: Any) -> None:
        """Use a new client from now on, unless `client` was replaced before, or too many were of late."""
        if client is self._client and FORMER_CLIENTS.keep(client):
            self._client = self._connect()

    def _connect(self) -> AdminClient:
        return create_client(AdminClient, self._configuration)
