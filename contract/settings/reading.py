"""Reading `shop.toml`, the one configuration file, validated as a whole when a process starts.

Every value can also come from the environment as `SHOPSTREAM_SECTION__NAME` (addresses and secrets belong there),
which takes precedence over the file. All errors are reported at once, as `BadConfig`. `SHOPSTREAM_CONFIG` names the
file, by default `shop.toml`.
"""

import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
from pydantic import ValidationError, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from contract.errors import BadConfig
from contract.features.declaration import GROUPS, FeatureSet, read_features
from contract.settings.model import ModelConfig
from contract.settings.monitor import MonitorConfig
from contract.settings.servers import KafkaSettings, RedisSettings, TopicSettings
from contract.settings.training import TrainingConfig
from contract.settings.worker import FeedbackSettings, ListSettings, LogSettings, Rule, WorkerSettings
from contract.tasks import Task


class Settings(BaseSettings):
    """All settings of all processes. `tasks` are the `[[tasks]]` tables; see `contract.tasks.Task`."""

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
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    watch: MonitorConfig = MonitorConfig()
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
    """The settings and the features that they name; raises `BadConfig` with every error of both."""
    if not config_path().is_file():
        raise BadConfig([f"The configuration should be a file. Found none at {config_path()}."])
    try:
        settings = Settings()
    except ValidationError as error:
        raise BadConfig(describe_errors(error, Settings)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfig([f"{config_path()} should be TOML. Found: {error}"]) from error
    except SettingsError as error:
        raise BadConfig([f"The environment should hold values of the settings' types. Found: {error}."]) from error
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


def describe_errors(error: ValidationError, root: type, prefix: str = "") -> list[str]:
    """Each invalid value as a sentence: its name, what is accepted there, what was found."""
    return [describe_error(details, root, prefix) for details in error.errors()]


def describe_error(details: ErrorDetails, root: type, prefix: str) -> str:
    location = details["loc"]
    name = prefix + ".".join(map(str, location))
    if details["type"] == "extra_forbidden":
        accepted = ", ".join(list_accepted_names(root, location[:-1]))
        return f"`{name}` should be one of the settings {accepted}. Found none of that name."
    if details["type"] == "missing":
        return f"`{name}` should be given. Found {details['input']!r}."
    message = details["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"`{name}` {message}. Found {details['input']!r}."


def list_accepted_names(root: Any, location: tuple[int | str, ...]) -> Iterator[str]:
    """The names that the table at `location` may have."""
    for step in location:
        root = get_args(root)[0] if isinstance(step, int) else root.model_fields[step].annotation
    yield from root.model_fields


def find_unknown_rules(settings: Settings, features: FeatureSet) -> list[Rule]:
    declared = {feature.name for group in GROUPS for feature in features.numbers(group)}
    return [rule for rule in settings.rules if rule.feature not in declared]


def find_mistakes(settings: Settings) -> Iterator[str]:
    """What is wrong between values: names used twice, tasks that refer to undeclared ones."""
    names = [task.name for task in settings.tasks]
    if len(set(names)) < len(names):
        yield f"Tasks should have names of their own. Found {names}."
    for task in settings.tasks:
        if task.through is not None and task.through not in names:
            yield f"Task `{task.name}` should go through a declared task. Found `{task.through}`."
        if not set(task.groups) <= set(GROUPS):
            yield f"Task `{task.name}` should read groups among {GROUPS}. Found {task.groups}."
    topics = sorted(settings.topics.names_by_kind().values())
    if len(set(topics)) < len(topics):
        yield f"Each kind should have a topic of its own. Found {topics}."
    if settings.lists.length > settings.lists.candidates:
        yield "A list should be no longer than its candidates. Found it longer."
