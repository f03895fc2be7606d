"""Headers of a message, for every reader: the client itself cannot represent names that are not UTF-8."""

import logging
from collections.abc import Callable
from operator import methodcaller
from typing import Final

from confluent_kafka import Message

from transport.records import Headers, TopicPartition

log = logging.getLogger(__name__)
# The client returns headers with a name that is not UTF-8 while an exception is set. A call in C raises it here and
# now; one in Python does so only until the interpreter has optimised it, and later leaves it to any next call.
read_headers: Final = methodcaller("headers")
warned_topics: Final = set[str]()  # one line for each topic: all its records may have such headers


def decode_headers(message: Message, count_dropped: Callable[[int], object] = lambda dropped: None) -> Headers:
    """The headers of a message, without those whose name is not UTF-8, which the client cannot represent.

    `count_dropped` is called with the number of headers that were left out, if there are any.
    """
    try:
        return read_headers(message) or ()
    except (SystemError, UnicodeDecodeError):  # once: then the client has converted them
        headers = read_headers(message) or ()
    # Such a name is a null pointer in its pair: reading it ends the process, except by `repr`.
    named = [pair for pair in headers if not repr(pair).startswith("(<NULL>")]
    partition = TopicPartition(message.topic() or "", message.partition() or 0)
    if partition.topic not in warned_topics:
        warned_topics.add(partition.topic)
        log.warning(
            "Headers should have names in UTF-8. Found one that does not at %s; such headers are left out.",
            partition.log_text(message.offset()),
            extra=partition.log_fields(message.offset()),
        )
    count_dropped(len(headers) - len(named))
    return named
