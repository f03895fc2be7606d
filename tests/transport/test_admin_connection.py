"""An admin client is replaced once no broker answers it, and kept until none of its requests waits."""

import gc
import weakref
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from contract.errors import Unavailable
from contract.settings.servers import KafkaSettings
from transport import admin_connection
from transport.admin_connection import FORMER_CLIENTS_MAX, KEEP_S, AdminConnection, FormerClients


class FakeAdminClient:
    """Sends nothing; false like a client without queued events."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __len__(self) -> int:
        return 0

    def poll(self, timeout: float) -> int:
        return 0


class Clock:
    """A clock that is set by hand."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(admin_connection, "AdminClient", FakeAdminClient)
    monkeypatch.setattr(admin_connection, "FORMER_CLIENTS", FormerClients(clock_s=clock))
    return clock


@pytest.fixture
def connection(clock: Clock) -> AdminConnection:
    return AdminConnection(kafka=KafkaSettings())


def fail(connection: AdminConnection, error: Exception, client: Any = None) -> Any:
    """The client of a request that fails."""
    with pytest.raises(Unavailable, match="Kafka should answer"), connection.request("answer", client) as used:
        raise error
    return used


@pytest.mark.parametrize(
    "error",
    [
        KafkaException(KafkaError(KafkaError._TIMED_OUT)),
        KafkaException(KafkaError(KafkaError._TRANSPORT)),
        KafkaException(KafkaError(KafkaError._ALL_BROKERS_DOWN)),
        KafkaException(KafkaError(KafkaError.FENCED_LEADER_EPOCH)),
        KafkaException(KafkaError(KafkaError.NOT_COORDINATOR)),
        TimeoutError(),
    ],
    ids=repr,
)
def test_a_client_that_gets_no_answer_or_asks_the_wrong_broker_is_replaced(
    connection: AdminConnection, error: Exception
) -> None:
    failed = fail(connection, error)

    with connection.request("answer") as client:
        assert client is not failed


@pytest.mark.parametrize(
    "code",
    [
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.UNKNOWN,
        KafkaError._UNKNOWN_PARTITION,
    ],
)
def test_a_client_whose_broker_answers_with_an_error_is_kept(connection: AdminConnection, code: int) -> None:
    failed = fail(connection, KafkaException(KafkaError(code)))

    with connection.request("answer") as client:
        assert client is failed


def test_a_late_failure_of_a_former_client_does_not_replace_the_present_one(connection: AdminConnection) -> None:
    # given
    timed_out = KafkaException(KafkaError(KafkaError._TIMED_OUT))
    former = fail(connection, timed_out)
    present = connection.client
    # when
    assert fail(connection, timed_out, former) is former
    # then
    assert connection.client is present


def test_a_former_client_is_kept_until_none_of_its_requests_waits(clock: Clock, connection: AdminConnection) -> None:
    # given
    former = weakref.ref(fail(connection, TimeoutError()))
    # when it is used no longer
    clock.now_s = KEEP_S - 1
    assert connection.client is not None
    gc.collect()
    # then
    assert former() is not None
    # when
    clock.now_s = KEEP_S
    assert connection.client is not None
    gc.collect()
    # then
    assert former() is None


def test_a_former_client_is_kept_also_without_its_owner(clock: Clock, connection: AdminConnection) -> None:
    former = weakref.ref(fail(AdminConnection(kafka=KafkaSettings()), TimeoutError()))

    gc.collect()

    assert former() is not None


def test_no_more_clients_are_replaced_than_may_be_kept(clock: Clock, connection: AdminConnection) -> None:
    # given
    clients = {id(fail(connection, TimeoutError())) for _ in range(FORMER_CLIENTS_MAX + 3)}
    assert len(clients) == FORMER_CLIENTS_MAX + 1
    # when
    clock.now_s = KEEP_S
    last = fail(connection, TimeoutError())
    # then
    assert connection.client is not last
