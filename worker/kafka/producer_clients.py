"""The clients of a producer: created, made usable after a failure, and replaced where one does not get on.

librdkafka removes brokers that a metadata reply does not list, and after a reply without any (all brokers were fenced
for a moment) a client has none to ask: it never gets on again, and nothing says so. A new client starts from the
bootstrap servers.
"""

import logging
import math
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from contract.errors import ShopstreamError, Unavailable
from contract.settings.servers import KafkaSettings
from transport.client_log import create_client
from worker.kafka.record_limits import RecordLimits
from worker.ops.retry import Retry

log = logging.getLogger(__name__)
TIMEOUT_S: Final = 10.0
# A broker that is back answers well within this; if all are still away, new clients wait as the old ones did.
STUCK_S: Final = 20.0
DISCARD_S: Final = 1.0
TRANSACTION_MS_MIN: Final = 20_000  # a batch outlives a short absence of the broker


class TransactionAborted(ShopstreamError):
    """A transaction failed: the same records are published again."""


class ClientFailed(TransactionAborted):
    """A client failed, or does not get on: if it was committing, that may have happened or not."""


class ClientStuck(ClientFailed):
    """A client did not get on for `STUCK_S`."""


class ProducerClients:
    """The clients that transactions alternate between; one, without transactions.

    For some milliseconds after a commit the coordinator still writes its markers and refuses a new transaction of the
    same producer, and the client retries only after 20 ms.
    """

    def __init__(
        self,
        *,
        kafka: KafkaSettings,
        transactional_id: str | None,
        retry: Retry,
        limits: RecordLimits,
        on_delivery: Callable[[KafkaError, Message], None],
    ) -> None:
        self._transactional_ids = (None,) if transactional_id is None else (transactional_id, f"{transactional_id}+")
        self._configuration: dict[str, Any] = {
            "linger.ms": 2,
            "compression.type": "lz4",
            "enable.idempotence": True,
            # The offsets in the open transaction of a dead worker hold the next owner of its partitions back: no longer
            # than its membership did.
            "transaction.timeout.ms": max(kafka.session_timeout_ms, TRANSACTION_MS_MIN),
            **kafka.connection(),
            "delivery.report.only.error": True,  # together with a flush as good as a report of each record
            "on_delivery": on_delivery,
            "log_level": 3,
            "error_cb": lambda error: None,  # the consumer reports unreachable brokers, once
        }
        self._retry, self._limits = retry, limits
        self._failure = ""  # why all clients have to be replaced
        self._current = 0
        self._clients = [self._create(ident) for ident in self._transactional_ids]
        self._options = [limits.client_options() for _ in self._clients]

    @property
    def current(self) -> Producer:
        """The client of the open transaction, or of the next."""
        return self._clients[self._current]

    @property
    def are_transactional(self) -> bool:
        return self._transactional_ids[self._current] is not None

    def timeout_s(self) -> float:
        """How long one call may take."""
        return self._retry.bound(TIMEOUT_S)

    def switch(self) -> None:
        """The next transaction is that of the next client."""
        self._current = (self._current + 1) % len(self._clients)

    def adopt_limits(self) -> None:
        """Replace the current client if the sizes of records have changed since it was created."""
        if self._options[self._current] != self._limits.client_options():
            self._replace_current()

    def run_step(self, attempt: Callable[[], object]) -> None:
        """Retry `attempt` of the current client while it raises `Unavailable`.

        Raises `ClientStuck` once it has neither succeeded nor delivered a record for `STUCK_S`; `recover` then replaces
        all clients.
        """
        try:
            self._retry_limited(self.current, attempt)
        except ClientStuck as error:
            self._failure = str(error)
            raise

    def run_call(self, call: Callable[[], object]) -> None:
        """`run_step` of a call into the client; raises `TransactionAborted` where it cannot be retried."""
        self.run_step(partial(translate_errors, call))

    def give_up(self, reason: str) -> None:
        """`recover` replaces all clients."""
        self._failure = reason

    def recover(self) -> None:
        """End the open transaction and make the clients usable again.

        A transaction past its timeout fences its producer just as a second process under this id would. The consumer
        tells the two apart: a fenced member can neither commit nor poll.
        """
        if not self._failure and self.are_transactional:
            with suppress(ClientStuck):
                self.run_step(self._abort)
        elif not self._failure:
            discard(self.current)
        if self._failure:
            log.warning("Creating new producers: %s", self._failure)
            self.replace_all()

    def replace_all(self) -> None:
        """Create new clients, which fence others with their transactional ids.

        On return the transactions of those have ended, also one that was being committed. All are replaced, since all
        wait for one coordinator.
        """
        for client in self._clients:
            discard(client)
        self._clients = [self._create(ident) for ident in self._transactional_ids]
        self._options = [self._limits.client_options() for _ in self._clients]
        self._failure = ""

    def close(self) -> None:
        for client in self._clients:
            discard(client)

    def _abort(self) -> None:
        try:
            self.current.abort_transaction(self.timeout_s())
        except KafkaException as failure:
            error: KafkaError = failure.args[0]
            if error.code() == KafkaError._CONFLICT:  # a commit that timed out can be resumed and not aborted
                self._failure = error.str()
                return
            if error.retriable() and not error.fatal():
                raise Unavailable(f"Kafka should abort a transaction. Found: {error.str()}") from failure
            log.warning("Creating a new producer after a fatal producer error: %s", error.str())
            self._replace_current()

    def _replace_current(self) -> None:
        discard(self.current)
        self._clients[self._current] = self._create(self._transactional_ids[self._current])
        self._options[self._current] = self._limits.client_options()

    def _create(self, transactional_id: str | None) -> Producer:
        options = {**self._configuration, **self._limits.client_options()}
        if transactional_id is None:
            return create_client(Producer, options)
        while True:
            client = create_client(Producer, {**options, "transactional.id": transactional_id})
            try:
                self._retry_limited(
                    client,
                    partial(translate_errors, lambda: client.init_transactions(self.timeout_s())),  # noqa: B023
                )
            except ClientStuck as error:
                log.warning("Creating another producer: %s", error)
                discard(client)
            else:
                return client

    def _retry_limited(self, client: Producer, attempt: Callable[[], object]) -> None:
        since_s, waiting = math.inf, math.inf

        def attempt_limited() -> None:
            nonlocal since_s, waiting
            try:
                attempt()
            except Unavailable as error:
                now_s, before = time.monotonic(), waiting
                waiting = len(client)
                if waiting < before:
                    since_s = now_s
                if now_s - since_s >= STUCK_S:
                    raise ClientStuck(f"A producer should get on within {STUCK_S:g} s. {error}") from error
                raise

        self._retry.call("kafka", attempt_limited)


def translate_errors(call: Callable[[], object]) -> None:
    """One step of a transaction; raises `Unavailable` where it can be retried, else `TransactionAborted`."""
    try:
        call()
    except KafkaException as failure:
        error: KafkaError = failure.args[0]
        if error.retriable() and not error.txn_requires_abort() and not error.fatal():
            raise Unavailable(f"Kafka should continue the transaction. Found: {error.str()}") from failure
        kind = TransactionAborted if error.txn_requires_abort() else ClientFailed
        raise kind(f"A transaction should be committed. Found: {error.str()}") from failure


def discard(client: Producer) -> None:
    """Drop the records of a client; their reports are served, or it would keep them without end."""
    client.purge()
    serve_reports(client, DISCARD_S)


def serve_reports(client: Producer, timeout_s: float = 0.0) -> None:
    """Serve the reports of failed deliveries, also those of a client that was fenced."""
    with suppress(KafkaException, SystemError):
        client.flush(timeout_s)
