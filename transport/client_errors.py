"""Errors of the Kafka client: which of them mean that it may have lost its brokers, and how they are raised."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from confluent_kafka import KafkaError, KafkaException

from contract.errors import Unavailable

CLIENT_CODES: Final = range(-200, -99)  # of errors that no broker sent
# What the client knows from an earlier answer, or without one.
KNOWN: Final = (
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._UNSUPPORTED_FEATURE,
    KafkaError._INVALID_ARG,
)
# The client asks the wrong broker, or with an old epoch: an admin client does so without end after some outages.
OUTDATED: Final = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.NOT_COORDINATOR,
    KafkaError.NOT_CONTROLLER,
)


def needs_new_client(error: KafkaError) -> bool:
    """Whether a client got no answer, or none that helps; it should be replaced then.

    librdkafka removes each broker that a metadata reply does not list. While a cluster has fenced all its brokers a
    reply lists none: the client then has no broker left to ask, and each of its requests times out, without end.
    """
    code = error.code()
    return code in OUTDATED or (code in CLIENT_CODES and code not in KNOWN)


@contextmanager
def translate_errors(action: str, on_loss: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Raise `Unavailable` for an error of the client; `on_loss` is called first if it should be replaced."""
    try:
        yield
    except KafkaException as error:
        if needs_new_client(error.args[0]):
            on_loss()
        raise Unavailable(f"Kafka should {action}. Found: {error.args[0].str()}") from error
    except TimeoutError as error:  # of a future, or of a request that was repeated until now
        on_loss()
        last_error = f" ({error})" if str(error) else ""
        raise Unavailable(f"Kafka should {action}. Found no answer in time{last_error}.") from error
