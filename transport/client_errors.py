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


def is_answer(error: KafkaError) -> bool:
    """Whether a broker answered; after another error the client should be replaced.

    librdkafka removes each broker that a metadata reply does not list. While a cluster has fenced all its brokers a
    reply lists none: the client then has no broker left to ask, and each of its requests times out, without end.
    """
    return error.code() not in CLIENT_CODES or error.code() in KNOWN


@contextmanager
def translate_errors(action: str, on_loss: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Raise `Unavailable` for an error of the client; `on_loss` is called first if no broker answered."""
    try:
        yield
    except KafkaException as error:
        if not is_answer(error.args[0]):
            on_loss()
        raise Unavailable(f"Kafka should {action}. Found: {error.args[0].str()}") from error
    except TimeoutError as error:  # of a future
        on_loss()
        raise Unavailable(f"Kafka should {action}. Found no answer in time.") from error
