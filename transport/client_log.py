"""What librdkafka says of the brokers: one line with backoff for each address and cause; and how clients are created.

Every client of a process logs to `CLIENT_LOG`. librdkafka tries again up to ten times a second in each client: of lines
that say the same, whichever client they are from, the first is written, and then one after 2, 4, 8, ... 60 seconds.
"""

import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar

from confluent_kafka import KafkaError, KafkaException, Producer

from contract.errors import BadConfig
from contract.settings.servers import KafkaSettings

T = TypeVar("T")
WAIT_MIN_S: Final = 2.0
WAIT_MAX_S: Final = 60.0
FORGOTTEN_S: Final = 300.0  # without a line, after which the next is the first again
CAUSES_MAX: Final = 200
NOT_CONFIGURATION: Final = (KafkaError._CRIT_SYS_RESOURCE,)

THREAD: Final = re.compile(r"\[thrd:[^\]]*\]:\s*")
ADDRESS: Final = re.compile(r"^(?:\w+://)?(\[?[\w.:-]+\]?:\d+)/(?:bootstrap|\d+|GroupCoordinator|TxnCoordinator):\s*")
REPETITION: Final = re.compile(r"\s*\(after \d+ms in state [\w-]+(?:, \d+ identical error\(s\) suppressed)?\)")
NUMBER: Final = re.compile(r"\d+")
# The setting that a line is about, by words in it; the first that applies.
SETTINGS_BY_WORDS: Final = (
    (re.compile(r"SASL|authenticat", re.IGNORECASE), "kafka.client (sasl.mechanism, sasl.username, sasl.password)"),
    (re.compile(r"security\.protocol|SSL listener|PLAINTEXT listener"), "kafka.client (security.protocol)"),
    (re.compile(r"SSL|TLS|certificate", re.IGNORECASE), "kafka.client (security.protocol, ssl.*)"),
    (re.compile(r"Invalid response size|receive\.message\.max"), "kafka.bootstrap_servers: no Kafka is there"),
    (re.compile(r"resolve|Connect to|Connection setup|timed out|Disconnected|refused"), "kafka.bootstrap_servers"),
)


class Statement(NamedTuple):
    """What a line of librdkafka says: about which address, the cause, and the setting that it depends on."""

    address: str
    cause: str
    setting: str


@dataclass(slots=True)
class Repetition:
    """How often something was said: when it is written next (monotonic), and what was left out since."""

    due_s: float = 0.0
    wait_s: float = WAIT_MIN_S
    latest_s: float = 0.0
    left_out: int = 0


class RepetitionFilter(logging.Filter):
    """Rewrites the lines of librdkafka, and passes one for each address and cause with backoff."""

    def __init__(self, *, clock_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock_s = clock_s
        self._repetitions: dict[tuple[str, str], Repetition] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write this line; its message is then the sentence."""
        text = str(record.args[2]) if isinstance(record.args, tuple) and len(record.args) > 2 else record.getMessage()
        statement = read_statement(text)
        left_out = self._count(statement)
        if left_out is None:
            return False
        record.msg, record.args = describe(statement, left_out), ()
        return True

    def _count(self, statement: Statement) -> int | None:
        """How many lines like this one were left out since the last that was written; None to leave this out too."""
        now_s, key = self._clock_s(), (statement.address, NUMBER.sub("0", statement.cause))
        repetition = self._repetitions.get(key)
        if repetition is None or now_s - repetition.latest_s > FORGOTTEN_S:
            if len(self._repetitions) >= CAUSES_MAX:
                self._repetitions.clear()
            repetition = self._repetitions[key] = Repetition()
        repetition.latest_s = now_s
        if now_s < repetition.due_s:
            repetition.left_out += 1
            return None
        left_out, repetition.left_out = repetition.left_out, 0
        repetition.due_s = now_s + repetition.wait_s
        repetition.wait_s = min(2 * repetition.wait_s, WAIT_MAX_S)
        return left_out


def read_statement(text: str) -> Statement:
    """What a line says; the address is empty where it names none."""
    text = REPETITION.sub("", THREAD.sub("", text)).strip()
    address = ""
    while match := ADDRESS.match(text):  # librdkafka repeats it
        address, text = match.group(1), text[match.end() :]
    if not address and (named := re.search(r"Failed to resolve '([^']+)'", text)):
        address = named.group(1)
    return Statement(address, text, next((name for words, name in SETTINGS_BY_WORDS if words.search(text)), ""))


def describe(statement: Statement, left_out: int) -> str:
    """The sentence for operators."""
    place = f" at {statement.address}" if statement.address else ""
    setting = f" Setting: {statement.setting}." if statement.setting else ""
    more = f" {left_out} lines like this one were left out." if left_out else ""
    return f"Kafka{place} should serve this process, which goes on trying. Found: {statement.cause}.{setting}{more}"


CLIENT_LOG: Final = logging.getLogger("librdkafka")  # a client writes to it from the thread that polls it
CLIENT_LOG.addFilter(RepetitionFilter())


def create_client(kind: Callable[..., T], configuration: Mapping[str, Any]) -> T:
    """A client of this kind; raises `BadConfig` for options that librdkafka does not take."""
    try:
        return kind(dict(configuration), logger=CLIENT_LOG)
    except KafkaException as error:
        if error.args[0].code() in NOT_CONFIGURATION:
            raise
        reason = error.args[0].str()
        raise BadConfig([f"`kafka.client` should have options that librdkafka takes. Found: {reason}"]) from error


def check_options(kafka: KafkaSettings) -> None:
    """Raise `BadConfig` for options that no client takes, before a thread of the process meets them."""
    create_client(Producer, {**kafka.connection(), "log_level": 0, "error_cb": lambda error: None})
