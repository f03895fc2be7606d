"""`shop.toml`: the one configuration file, validated as a whole when a process starts.

Every value can also come from the environment as `SHOPSTREAM_SECTION__NAME` (addresses and secrets belong there),
which wins over the file. All mistakes are reported at once, as `BadConfig`. The file is `SHOPSTREAM_CONFIG`, by default
`shop.toml`.
"""

import os
import tomllib
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import msgspec
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from contract.errors import BadConfig
from contract.events import KINDS
from contract.features.declaration import GROUPS, FeatureSet, read_features
from contract.tasks import Task

Positive = Annotated[int, Field(gt=0)]


class Section(BaseModel):
    """A table of the file: a name that it does not know is a mistake, not a comment."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class KafkaSettings(Section):
    """The brokers. `client` passes librdkafka's own settings through unchanged (TLS, SASL, ...)."""

    bootstrap_servers: str = "localhost:9092"
    client: dict[str, str | int | float | bool] = {}
    transactions: bool = True
    topic_ids: bool = True  # off for brokers that do not tell them (librdkafka's mock cluster)
    session_timeout_ms: Positive = 45_000
    group_prefix: str = "shopstream"

    def group(self, lane: str) -> str:
        """The consumer group of a lane's workers."""
        return f"{self.group_prefix}-{lane}"

    def connection(self) -> dict[str, str | int | float | bool]:
        """What every client of these brokers is configured with."""
        return {**self.client, "bootstrap.servers": self.bootstrap_servers}


class RedisSettings(Section):
    """Profiles, positions and claims live at `url`; caches at `cache_url` where that is another server.

    `cluster`: `url` is one of a Redis Cluster's servers, which tells of the others; `cache_cluster`: so is `cache_url`.
    """

    url: str = "redis://localhost:6379/0"
    cluster: bool = False
    cache_url: str | None = None
    cache_cluster: bool = False
    prefix: str = "shop:"
    timeout_s: Annotated[float, Field(gt=0)] = 5.0


class TopicSettings(Section):
    """The names of the topics; the keys are the kinds of events and answers."""

    clicks: str = "shop.clicks"
    impressions: str = "shop.impressions"
    orders: str = "shop.orders"
    reviews: str = "shop.reviews"
    searches: str = "shop.searches"
    products: str = "shop.products"
    labels: str = "shop.labels"
    erasures: str = "shop.erasures"
    judgements: str = "shop.judgements"
    decisions: str = "shop.decisions"
    rankings: str = "shop.rankings"
    classifications: str = "shop.classifications"
    scored: str = "shop.scored"
    feedback: str = "shop.feedback"
    erased: str = "shop.erased"
    dead_letters: str = "shop.dead-letters"
    partitions: Positive = 4

    def topic_name(self, kind: str) -> str:
        return str(getattr(self, kind))

    def kinds_by_topic(self) -> dict[str, str]:
        """Topic name -> kind of event, for the topics that are read."""
        return {self.topic_name(kind): kind for kind in KINDS}


class WorkerSettings(Section):
    """How a score worker works. `instance` tells workers of one lane apart and must be stable over restarts.

    A batch has what there is, at most `batch_max` records, and fewer where these would take longer than `latency_ms`.
    `wait_ms`: how long the first record is waited for.
    """

    instance: str = "0"
    batch_max: Positive = 2_000
    latency_ms: Positive = 100
    wait_ms: Positive = 20
    http_port: Annotated[int, Field(ge=0, le=65535)] = 9100
    swap_poll_ms: Positive = 1_000
    stall_s: Positive = 120
    on_lost_log: Literal["stop", "accept"] = "stop"
    dead_letter_share_max: Annotated[float, Field(gt=0, le=1)] = 0.5
    dead_letter_window: Positive = 10_000
    items_max: Annotated[int, Field(gt=0, le=10_000_000)] = 2_000_000  # of the catalogue; further ones are left out


class ListSettings(Section):
    """Recommendation lists: how many candidates are ranked, how many are kept, and for how long.

    `batch_max`: how many lists are made with one batch at most, so that state never waits for many; the users who wait
    longest come first. Of more than `waiting_max` users those who wait longest keep the list that they have.
    `explore`: the share of a list that fresh items get, those of the last `fresh_days`. `category_max`, `seller_max`:
    how many items of one may stand on a list, 0 for any number. `shed_ms`: events that waited longer than this in
    Kafka bring no new list, 0 for never.
    """

    candidates: Annotated[int, Field(gt=0, le=1_000)] = 100
    batch_max: Positive = 50
    waiting_max: Positive = 100_000
    length: Positive = 20
    refresh_ms: Annotated[int, Field(ge=0)] = 1_000
    ttl_s: Positive = 14 * 86_400
    decision_ttl_s: Positive = 7 * 86_400
    purchase_value: Annotated[float, Field(ge=0)] = 5.0  # a purchase is worth so many clicks in a list's score
    explore: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    fresh_days: Positive = 14
    category_max: Annotated[int, Field(ge=0)] = 0
    seller_max: Annotated[int, Field(ge=0)] = 0
    shed_ms: Annotated[int, Field(ge=0)] = 0


class LogSettings(Section):
    """The log on stderr: `text` for a terminal, or one `json` object per line; the lowest level that is written."""

    format: Literal["text", "json"] = "text"
    level: Literal["debug", "info", "warning", "error"] = "info"


class Rule(Section):
    """A feature compared with a number gives an action and a reason, whatever the model says."""

    feature: str
    above: float
    action: Literal["review", "decline"]
    reason: str


class LabelDelay(NamedTuple):
    """A label of 0 is said after `wait_ms` and may become 1 until `window_ms` have passed."""

    wait_ms: int
    window_ms: int


class FeedbackSettings(Section):
    """How long labels are waited for, in the streams' own time, and how much may wait at once.

    `grace_s`: how much longer a row is kept for labels that come out of order. `idle_ms`, by the clock: how long a
    partition has to be silent before the others' time goes on without it. The oldest of more than `rows_max` rows of a
    kind, or more than `parked_max` events that came before their row, leave and are counted. `said_max`: how many
    published examples and judgements a restarted joiner remembers, lest it publish them again; 8 bytes each.
    """

    impression_wait_s: Positive = 86_400
    click_wait_s: Positive = 30 * 60
    purchase_wait_s: Positive = 60 * 60
    purchase_window_s: Positive = 7 * 86_400
    fraud_window_s: Positive = 30 * 86_400
    grace_s: Positive = 60 * 60
    idle_ms: Annotated[int, Field(ge=0)] = 2_000
    rows_max: Positive = 200_000
    parked_max: Positive = 100_000
    said_max: Positive = 50_000_000

    def delays_by_task(self) -> dict[str, LabelDelay]:
        """The tasks whose first label may be corrected, by name; counted from the label that they go through."""
        return {"purchase": LabelDelay(self.purchase_wait_s * 1000, self.purchase_window_s * 1000)}


class Settings(BaseSettings):
    """Everything a process may be told. `tasks` are `[[tasks]]` tables; see `contract.tasks.Task`."""

    model_config = SettingsConfigDict(
        env_prefix="SHOPSTREAM_", env_nested_delimiter="__", extra="forbid", frozen=True, arbitrary_types_allowed=True
    )

    kafka: KafkaSettings = KafkaSettings()
    redis: RedisSettings = RedisSettings()
    topics: TopicSettings = TopicSettings()
    worker: WorkerSettings = WorkerSettings()
    lists: ListSettings = ListSettings()
    feedback: FeedbackSettings = FeedbackSettings()
    log: LogSettings = LogSettings()
    rules: tuple[Rule, ...] = ()
    tasks: tuple[Task, ...] = ()
    thresholds: dict[str, dict[str, float]] = {}
    model: dict[str, int | float | str] = {}
    training: dict[str, int | float | str] = {}
    watch: dict[str, int | float | str] = {}
    bundles: Path = Path("bundles")
    features: Path = Path("features.toml")

    @field_validator("tasks", mode="before")
    @classmethod
    def _as_tasks(cls, value: object) -> object:
        try:
            return msgspec.convert(value, tuple[Task, ...])
        except msgspec.ValidationError as error:
            raise ValueError(str(error)) from error

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls, config_path()))


def config_path() -> Path:
    return Path(os.environ.get("SHOPSTREAM_CONFIG", "shop.toml"))


def read_settings() -> tuple[Settings, FeatureSet]:
    """The settings and the features that they name; raises `BadConfig` with every mistake of both."""
    if not config_path().is_file():
        raise BadConfig([f"The configuration should be a file. Found none at {config_path()}."])
    try:
        settings = Settings()
    except ValidationError as error:
        invalid = [f"`{'.'.join(map(str, e['loc']))}`: {e['msg']}. Found {e['input']!r}." for e in error.errors()]
        raise BadConfig(invalid) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfig([f"{config_path()} should be TOML. Found: {error}"]) from error
    except SettingsError as error:
        raise BadConfig([f"The environment should hold values that can be read. Found: {error}."]) from error
    errors = list(find_mistakes(settings))
    try:
        features = read_features(settings.features)
        errors += [
            f"A rule's feature should be declared. Found `{r.feature}`." for r in find_unknown_rules(settings, features)
        ]
    except BadConfig as error:
        errors += error.errors
    if errors:
        raise BadConfig(errors)
    return settings, features


def find_unknown_rules(settings: Settings, features: FeatureSet) -> list[Rule]:
    declared = {feature.name for group in GROUPS for feature in features.numbers(group)}
    return [rule for rule in settings.rules if rule.feature not in declared]


def find_mistakes(settings: Settings) -> list[str]:
    """What no single value can show: names used twice, tasks that lean on none."""
    errors, names = [], [task.name for task in settings.tasks]
    if len(set(names)) < len(names):
        errors.append(f"Tasks should have names of their own. Found {names}.")
    for task in settings.tasks:
        if task.through is not None and task.through not in names:
            errors.append(f"Task `{task.name}` should go through a declared task. Found `{task.through}`.")
        if not set(task.groups) <= set(GROUPS):
            errors.append(f"Task `{task.name}` should read groups among {GROUPS}. Found {task.groups}.")
    topics = [settings.topics.topic_name(kind) for kind in type(settings.topics).model_fields if kind != "partitions"]
    if len(set(topics)) < len(topics):
        errors.append(f"Each kind should have a topic of its own. Found {sorted(topics)}.")
    if settings.lists.length > settings.lists.candidates:
        errors.append("A list should be no longer than its candidates. Found it longer.")
    return errors
