"""Reading `shop.toml`, the one configuration file, validated as a whole when a process starts.

Every value can also come from the environment as `SHOPSTREAM_SECTION__NAME` (addresses and secrets belong there),
which takes precedence over the file. `SHOPSTREAM_CONFIG` names the file, by default `shop.toml`.

All errors are reported at once, as `BadConfig`: variables that set nothing, wrong values in the order of the sections,
then unknown sections, then mistakes between values, then those of the features file. Mistakes between the values of
`[topics]` or `[lists]` are looked for if each value is valid. A file or a variable that cannot be parsed is reported
alone. A relative path is relative to the folder of the file, wherever it is set. Of `training.balance` only the type is
checked here: a method may be any class of TorchJD, which score workers do not install, so the training commands check
its name (`training.trainer.config`).
"""

import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Self, Union, get_args, get_origin

from msgspec import Struct
from pydantic import ModelWrapValidatorHandler, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from contract.errors import BadConfig
from contract.features.declaration import FeatureSet
from contract.features.reading import read_features
from contract.features.sources import describe_nearest
from contract.graphs import DECIDE
from contract.mapping.event_topics import EventTopics
from contract.mapping.units import find_double_units
from contract.profiles.entity_kinds import EntityKinds
from contract.settings.entities import EntitySettings, declare_entities, find_entity_mistakes
from contract.settings.experiments import ExperimentSettings, find_experiment_mistakes
from contract.settings.intake import IntakeSettings
from contract.settings.mapping import read_maps
from contract.settings.model import ModelConfig
from contract.settings.monitor import MonitorConfig
from contract.settings.names import find_unknown_variables
from contract.settings.placements import PlacementSettings
from contract.settings.servers import KafkaSettings, RedisSettings, RegistrySettings, TopicSettings, resolve_options
from contract.settings.tasks import (
    Probability,
    ThresholdAction,
    find_task_mistakes,
    find_threshold_mistakes,
    list_task_names,
    read_tasks,
)
from contract.settings.training import TrainingConfig
from contract.settings.worker import FeedbackSettings, ListSettings, LogSettings, Rule, WorkerSettings
from contract.tasks import Task

QUOTED: Final = re.compile(r"'([^']+)'")  # the values that a message names


class WrongValues(BadConfig):
    """Some values are wrong. `settings`: the others, see `drop_wrong_values`; `task_names`: the names of all tasks."""

    def __init__(self, errors: list[str], settings: "Settings", task_names: list[str]) -> None:
        super().__init__(errors)
        self.settings = settings
        self.task_names = task_names


class Settings(BaseSettings):
    """All settings of all processes; raises `WrongValues`.

    `bundle_store`: the URL of the folder in an object store that workers read bundles from, instead of `bundles`.
    `map`: the tables of `[map]`, see `contract.settings.mapping`.
    `tasks` are the `[[tasks]]` tables; see `contract.tasks.Task`. `experiments`: by name. `entities`: by kind.
    `thresholds`: task -> action -> least probability.
    """

    model_config = SettingsConfigDict(
        env_prefix="SHOPSTREAM_", env_nested_delimiter="__", extra="forbid", frozen=True, arbitrary_types_allowed=True
    )

    kafka: KafkaSettings = KafkaSettings()
    redis: RedisSettings = RedisSettings()
    topics: TopicSettings = TopicSettings()
    intake: IntakeSettings = IntakeSettings()
    worker: WorkerSettings = WorkerSettings()
    lists: ListSettings = ListSettings()
    feedback: FeedbackSettings = FeedbackSettings()
    log: LogSettings = LogSettings()
    placements: PlacementSettings = PlacementSettings()
    experiments: dict[str, ExperimentSettings] = {}
    entities: dict[str, EntitySettings] = {}
    rules: tuple[Rule, ...] = ()
    tasks: tuple[Task, ...] = ()
    thresholds: dict[str, dict[ThresholdAction, Probability]] = {}
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    watch: MonitorConfig = MonitorConfig()
    map: dict[str, Any] = {}
    registry: RegistrySettings = RegistrySettings()
    bundles: Path = Path("bundles")
    bundle_store: str = ""
    features: Path = Path("features.toml")

    def event_topics(self) -> EventTopics:
        """The topics that events are read from, and their maps; raises `BadConfig`."""
        return EventTopics(self.topics, self.map, self.intake.folded_placeholders)

    def entity_kinds(self) -> EntityKinds:
        """The built-in kinds of entities and those of `[entities]`."""
        return EntityKinds(declare_entities(self.entities, self.intake))

    @field_validator("tasks", mode="before")
    @classmethod
    def _read_tasks(cls, value: object) -> object:
        is_read = isinstance(value, tuple) and all(isinstance(task, Task) for task in value)
        return value if is_read else read_tasks(value)

    @model_validator(mode="wrap")
    @classmethod
    def _keep_valid_values(cls, values: dict[str, Any], validate: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return validate(values)
        except ValidationError as error:
            names = list_task_names(values.get("tasks"))
            errors = describe_errors(error, cls, task_names=names)
            settings = validate(drop_wrong_values(values, error))
            raise WrongValues(errors, settings, [name for name in names if name]) from error

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings, env_settings, InitSettingsSource(settings_cls, read_tables(config_path())))


def config_path() -> Path:
    return Path(os.environ.get("SHOPSTREAM_CONFIG", "shop.toml"))


def read_tables(path: Path) -> dict[str, Any]:
    """The tables of a TOML file, which some editors begin with a byte order mark; none if it does not exist."""
    return tomllib.loads(path.read_text("utf-8-sig")) if path.exists() else {}


def read_settings() -> tuple[Settings, FeatureSet]:
    """The settings and the features that they name; raises `BadConfig` with every error of both."""
    if not config_path().is_file():
        raise BadConfig(
            [
                f"The configuration should be a file. Found none at {config_path()}. SHOPSTREAM_CONFIG names another "
                "one; `shopstream init` writes a first one."
            ]
        )
    errors = list(find_unknown_variables(Settings, os.environ))
    try:
        settings = Settings()
        task_names = [task.name for task in settings.tasks]
    except WrongValues as wrong:
        errors += wrong.errors
        settings = wrong.settings
        task_names = wrong.task_names
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfig([f"{config_path()} should be TOML. Found: {error}"]) from error
    except SettingsError as error:
        raise BadConfig([f"The environment should hold values of the settings' types. Found: {error}."]) from error
    settings = resolve_paths(settings, config_path().parent)
    errors += find_mistakes(settings, task_names)
    try:
        features = read_features(settings.features, declare_entities(settings.entities, settings.intake))
        errors += find_unknown_features(settings.rules, features)
        errors += find_task_mistakes(settings.tasks, features)
    except BadConfig as error:
        errors += error.errors
    if errors:
        raise BadConfig(errors)
    return settings, features


def resolve_paths(settings: Settings, folder: Path) -> Settings:
    """The settings with every path that is relative to `folder` as the process finds it."""
    feedback = settings.feedback
    if feedback.store:
        feedback = feedback.model_copy(update={"store": str(folder / feedback.store)})
    lists = settings.lists
    if lists.rules:
        lists = lists.model_copy(update={"rules": str(folder / lists.rules)})
    kafka, registry = (
        section.model_copy(update={"client": resolve_options(section.client, folder)})
        for section in (settings.kafka, settings.registry)
    )
    paths = {"bundles": folder / settings.bundles, "features": folder / settings.features}
    sections = {"feedback": feedback, "lists": lists, "kafka": kafka, "registry": registry}
    return settings.model_copy(update={**paths, **sections})


def drop_wrong_values(values: Mapping[str, Any], error: ValidationError) -> dict[str, Any]:
    """The values without wrong sections; of `[[rules]]`, `[thresholds]` and `[entities]`, only what is wrong."""
    locations = {details["loc"][:2] for details in error.errors()}
    valid: dict[str, Any] = {}
    for name, value in values.items():
        wrong = {location[1:] for location in locations if location[0] == name}
        if not wrong:
            valid[name] = value
        elif name == "rules" and isinstance(value, list):
            valid[name] = [table for number, table in enumerate(value) if (number,) not in wrong]
        elif name == "thresholds" and isinstance(value, dict):
            valid[name] = {task: {} if (task,) in wrong else by_action for task, by_action in value.items()}
        elif name == "entities" and isinstance(value, dict):  # a wrong one is declared too, for features that use it
            assumed = {kind: {"source": f"event.attributes.{kind}"} for kind in value}
            valid[name] = {kind: assumed[kind] if (kind,) in wrong else table for kind, table in value.items()}
    return valid


def describe_errors(
    error: ValidationError, root: type, prefix: str = "", task_names: Sequence[str | None] = ()
) -> list[str]:
    """Each invalid value as a sentence: its name, what is accepted there, what was found."""
    return [describe_error(details, root, prefix, task_names) for details in error.errors()]


def describe_error(details: ErrorDetails, root: type, prefix: str, task_names: Sequence[str | None]) -> str:
    location = tuple(step for step in details["loc"] if step != "[key]")
    name = f"`{prefix}{'.'.join(map(str, location))}`"
    if len(location) > 1 and location[0] == "tasks" and (task := task_names[int(location[1])]):
        name += f" of task `{task}`"
    if details["type"] == "extra_forbidden":
        accepted = list(list_accepted_names(root, location[:-1]))
        nearest = describe_nearest(str(location[-1]), accepted)
        return f"{name} should be one of the settings {', '.join(accepted)}. Found none of that name{nearest}."
    if details["type"] == "missing":
        return f"{name} should be given. Found {details['input']!r}."
    message = details["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if details["type"] == "path_type":  # pydantic names its class
        message = "should be a path"
    choices = QUOTED.findall(message) if isinstance(details["input"], str) else ()
    nearest = describe_nearest(str(details["input"]), [choice for choice in choices if choice != details["input"]])
    return f"{name} {message}. Found {hide_password(details['input'])!r}{nearest}."


def hide_password(value: object) -> object:
    """A value as it may be printed: an address without the user and password in it."""
    return value.rpartition("@")[2] if isinstance(value, str) else value


def list_accepted_names(root: Any, location: tuple[int | str, ...]) -> Iterator[str]:
    """The names that the table at `location` may have."""
    for step in location:
        if get_origin(root) is dict:
            root = get_args(root)[1]
        else:
            root = get_args(root)[0] if isinstance(step, int) else strip_optional(root.model_fields[step].annotation)
    yield from root.__struct_fields__ if issubclass(root, Struct) else root.model_fields


def strip_optional(annotation: Any) -> Any:
    """The type of a field without `None` and without its constraints."""
    if get_origin(annotation) in (Union, UnionType):
        annotation = next(part for part in get_args(annotation) if part is not NoneType)
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def find_unknown_features(rules: Sequence[Rule], features: FeatureSet) -> Iterator[str]:
    """Rules whose feature orders do not have, or have of another kind."""
    for number, rule in enumerate(rules):
        kind = rule.feature_kind
        names = [f.name for f in features.features if f.kind == kind and f.group in DECIDE.event_groups]
        if rule.feature not in names:
            nearest, groups = describe_nearest(rule.feature, names), ", ".join(DECIDE.event_groups)
            yield (
                f"`rules.{number}.feature` should be a declared {kind} of the groups {groups}. "
                f"Found `{rule.feature}`{nearest}."
            )


def find_mistakes(settings: Settings, task_names: Sequence[str]) -> Iterator[str]:
    """What is wrong between values: names used twice, thresholds of other tasks. `task_names`: of all `[[tasks]]`."""
    topics = sorted(settings.topics.names_by_kind().values())
    if len(set(topics)) < len(topics):
        yield f"Each kind should have a topic of its own. Found {topics}."
    if settings.lists.length > settings.lists.candidates:
        yield "A list should be no longer than its candidates. Found it longer."
    yield from find_experiment_mistakes(settings.experiments, settings.lists)
    if len(set(task_names)) < len(task_names):
        yield f"Tasks should have names of their own. Found {task_names}."
    yield from find_map_mistakes(settings)
    yield from find_threshold_mistakes(settings.thresholds, settings.tasks, task_names)
    yield from find_entity_mistakes(settings.entities)


def find_map_mistakes(settings: Settings) -> list[str]:
    """What is wrong with `[map]`, in itself, with `[topics]` and with `[intake]`."""
    try:
        settings.event_topics()
    except BadConfig as error:
        return error.errors
    return list(find_double_units(read_maps(settings.map), settings.intake))
