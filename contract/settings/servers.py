"""[kafka], [redis], [registry], [topics]: the servers, and the names of what is on them."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, field_validator, model_validator

from contract.events.model import KINDS
from contract.settings.section import Positive, Section

DEFAULT_TOPIC_PREFIX: Final = "shop."
NO_TOPICS: Final = ("prefix", "partitions")  # settings of topics that name none
TOPIC_CHARS_MAX: Final = 249
TOPIC: Final = re.compile(r"[A-Za-z0-9._-]*")
REGISTRY_SCHEMES: Final = ("http://", "https://", "mock://")  # the last one is a client's own, for tests
FILE_OPTION: Final = re.compile(r".+\.(location|keytab|file)")  # of librdkafka and of the registry's client
SEARCH: Final = "probe"  # in place of a path: librdkafka looks where systems keep certificates
REDIS_SCHEMES: Final = ("redis", "rediss", "unix")


ClientOptions = dict[str, str | int | float | bool]


def resolve_options(options: Mapping[str, str | int | float | bool], folder: Path) -> ClientOptions:
    """The options of a client, those that name a file with the path that is relative to `folder`."""
    return {
        name: str(folder / value)
        if FILE_OPTION.fullmatch(name) and isinstance(value, str) and value not in ("", SEARCH)
        else value
        for name, value in options.items()
    }


def check_topic(name: str) -> str:
    if not TOPIC.fullmatch(name) or not 1 <= len(name) <= TOPIC_CHARS_MAX or name in (".", ".."):
        raise ValueError(f"should be the name of a topic: 1 to {TOPIC_CHARS_MAX} letters, digits, dots, `_` and `-`")
    return name


def check_prefix(prefix: str) -> str:
    if not is_topic_prefix(prefix):
        raise ValueError("should be how names of topics begin: letters, digits, dots, `_` and `-`")
    return prefix


def is_topic_prefix(prefix: str) -> bool:
    return TOPIC.fullmatch(prefix) is not None and len(prefix) <= TOPIC_CHARS_MAX // 2


Topic = Annotated[str, AfterValidator(check_topic)]


class KafkaSettings(Section):
    """The brokers. `client`: librdkafka's own settings, passed through with paths resolved (TLS, SASL, ...).

    `former_group_prefix`: the one under which this shop wrote its answers before; their topics are taken over.
    """

    bootstrap_servers: Annotated[str, Field(min_length=1)] = "localhost:9092"
    client: ClientOptions = Field(default={})
    transactions: bool = True
    topic_ids: bool = True  # off for brokers that do not report them (librdkafka's mock cluster)
    session_timeout_ms: Positive = 45_000
    group_prefix: Annotated[str, Field(min_length=1)] = "shopstream"
    former_group_prefix: str = ""

    def group(self, lane: str) -> str:
        """The consumer group of a lane's workers."""
        return f"{self.group_prefix}-{lane}"

    def connection(self) -> ClientOptions:
        """The configuration of every client of these brokers.

        By default librdkafka replaces its brokers once none of them answers. A transactional producer then may wait for
        a replaced one without end, whatever the time-out of the call.
        """
        return {"metadata.recovery.strategy": "none", **self.client, "bootstrap.servers": self.bootstrap_servers}


def check_key_prefix(prefix: str) -> str:
    if "{" in prefix or "}" in prefix:
        raise ValueError("should have no braces, which decide where a Redis Cluster keeps a key")
    return prefix


class RedisSettings(Section):
    """Profiles, offsets and decision claims are stored at `url`; caches at `cache_url` if that is another server.

    `cluster`: `url` is one node of a Redis Cluster, from which the others are discovered; `cache_cluster`: the same for
    `cache_url`.
    """

    url: str = "redis://localhost:6379/0"
    cluster: bool = False
    cache_url: str | None = None
    cache_cluster: bool = False
    prefix: Annotated[str, AfterValidator(check_key_prefix)] = "shop:"
    timeout_s: Annotated[float, Field(gt=0)] = 5.0

    @field_validator("url", "cache_url")
    @classmethod
    def _check_url(cls, value: str | None) -> str | None:
        if value is not None:
            check_redis_url(value)
        return value


def check_redis_url(url: str) -> None:
    """Raise `ValueError` unless a client can be made of this address; the address is not in the message."""
    try:
        parts = urlsplit(url)
        port, database = parts.port, parts.path.strip("/")
    except ValueError as error:
        raise ValueError(f"should be an address as redis://HOST:PORT/DATABASE ({error})") from error
    if parts.scheme not in REDIS_SCHEMES or "://" not in url:
        raise ValueError("should begin with redis://, rediss:// or unix://")
    if parts.scheme != "unix" and (port == 0 or (database and not database.isdigit())):
        raise ValueError("should be an address as redis://HOST:PORT/DATABASE with numbers for the last two")


def check_registry_url(url: str) -> str:
    if url and not url.startswith(REGISTRY_SCHEMES):
        raise ValueError("should begin with http:// or https://")
    return url


class RegistrySettings(Section):
    """A schema registry, whose framing records may begin with; without `url` none is asked.

    `client`: settings of the client, passed through with paths resolved (`basic.auth.user.info`, TLS, ...).
    """

    url: Annotated[str, AfterValidator(check_registry_url)] = ""
    client: ClientOptions = Field(default={})


class TopicSettings(Section):
    """The names of the topics, by the kind of event or answer.

    A topic that is not named has the name of its kind behind `prefix`. `partitions`: of topics that the worker creates.
    """

    prefix: Annotated[str, AfterValidator(check_prefix)] = DEFAULT_TOPIC_PREFIX
    clicks: Topic = "shop.clicks"
    impressions: Topic = "shop.impressions"
    orders: Topic = "shop.orders"
    reviews: Topic = "shop.reviews"
    searches: Topic = "shop.searches"
    products: Topic = "shop.products"
    labels: Topic = "shop.labels"
    erasures: Topic = "shop.erasures"
    judgements: Topic = "shop.judgements"
    decisions: Topic = "shop.decisions"
    rankings: Topic = "shop.rankings"
    classifications: Topic = "shop.classifications"
    scored: Topic = "shop.scored"
    feedback: Topic = "shop.feedback"
    erased: Topic = "shop.erased"
    dead_letters: Topic = "shop.dead-letters"
    partitions: Positive = 4

    @model_validator(mode="before")
    @classmethod
    def _put_prefix(cls, values: Any) -> Any:
        prefix = values.get("prefix") if isinstance(values, dict) else None
        if not isinstance(prefix, str) or not is_topic_prefix(prefix):
            return values
        names = {
            kind: prefix + str(field.default).removeprefix(DEFAULT_TOPIC_PREFIX)
            for kind, field in cls.model_fields.items()
            if kind not in NO_TOPICS
        }
        return names | values

    def topic_name(self, kind: str) -> str:
        return str(getattr(self, kind))

    def names_of(self, kinds: Iterable[str]) -> dict[str, str]:
        """Kind -> name of its topic, for these kinds."""
        return {kind: self.topic_name(kind) for kind in kinds}

    def names_by_kind(self) -> dict[str, str]:
        """Kind -> name of its topic, for all topics."""
        return {kind: getattr(self, kind) for kind in type(self).model_fields if kind not in NO_TOPICS}

    def kinds_by_topic(self) -> dict[str, str]:
        """Topic name -> kind of event, for the topics that are read."""
        return {self.topic_name(kind): kind for kind in KINDS}
