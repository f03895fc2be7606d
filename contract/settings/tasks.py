"""[[tasks]] and [thresholds]: the tables that declare tasks, validated in the same way as every other section.

`contract.tasks.Task`, which is also part of a bundle's manifest, has the fields and their defaults.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec
from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationInfo,
    create_model,
    field_validator,
)

from contract.features.declaration import GROUPS, FeatureSet
from contract.features.sources import describe_nearest
from contract.graphs import DECIDE, GRAPHS
from contract.settings.section import Section, refuse_bool
from contract.tasks import Task

THRESHOLD_ACTIONS: Final = ("review", "decline")


def check_action(action: str) -> str:
    if action not in THRESHOLD_ACTIONS:
        raise ValueError("should be 'review' or 'decline'")
    return action


ThresholdAction = Annotated[str, AfterValidator(check_action)]
Probability = Annotated[float, BeforeValidator(refuse_bool), Field(ge=0, le=1)]


class TaskSection(Section):
    """The rules of a `[[tasks]]` table beyond the types of its fields; `context`: the names of all tables."""

    model_config = ConfigDict(strict=True)

    @field_validator("*", mode="before")
    @classmethod
    def _read_array(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("groups", "alone", check_fields=False)
    @classmethod
    def _check_groups(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not set(value) <= set(GROUPS):
            raise ValueError(f"should be groups among {', '.join(GROUPS)}")
        return value

    @field_validator("through", check_fields=False)
    @classmethod
    def _check_through(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and value not in (info.context or ()):
            raise ValueError("should be a declared task")
        return value


def create_task_table() -> type[TaskSection]:
    """The section with the fields of `Task`, their types, limits and defaults."""
    fields: dict[str, Any] = {
        field.name: (field.type, ... if field.required else field.default) for field in msgspec.structs.fields(Task)
    }
    return create_model("TaskTable", __base__=TaskSection, **fields)


TASK_TABLES: Final[TypeAdapter[tuple[TaskSection, ...]]] = TypeAdapter(
    tuple[create_task_table(), ...]  # type: ignore[arg-type, misc]
)


def read_tasks(value: object) -> tuple[Task, ...]:
    """The tasks that tables declare; raises pydantic's `ValidationError` with every error of every table."""
    tables = TASK_TABLES.validate_python(value, context=list_task_names(value))
    return tuple(Task(**dict(table)) for table in tables)


def list_task_names(tables: object) -> list[str | None]:
    """The name of each table, None where it has none, also of tables that are otherwise wrong."""
    if not isinstance(tables, Sequence):
        return []
    names = [table.get("name") if isinstance(table, Mapping) else None for table in tables]
    return [name if isinstance(name, str) else None for name in names]


def find_task_mistakes(tasks: Sequence[Task], features: FeatureSet) -> Iterator[str]:
    """Groups that a task's graph does not read, and hidden features that are not declared."""
    names = list(features.digests)
    for number, task in enumerate(tasks):
        readable = GRAPHS[task.graph].groups
        if foreign := [group for group in task.groups if group not in readable]:
            yield (
                f"`tasks.{number}.groups` of task `{task.name}` should be what graph {task.graph} reads: "
                f"{', '.join(readable)}. Found {', '.join(foreign)}."
            )
        for name in task.hide:
            if name not in names:
                nearest = describe_nearest(name, names)
                yield (
                    f"`tasks.{number}.hide` of task `{task.name}` should name declared features. "
                    f"Found `{name}`{nearest}."
                )


def takes_thresholds(task: Task) -> bool:
    """Whether orders get a probability of this task, which thresholds are compared with."""
    return task.graph == DECIDE.name and task.kind in ("binary", "graded")


def find_threshold_mistakes(
    thresholds: Mapping[str, Mapping[str, float]], tasks: Sequence[Task], task_names: Sequence[str]
) -> Iterator[str]:
    """Thresholds that decide nothing, and a `review` above its `decline`.

    `tasks`: the valid ones; `task_names`: of all. If none is declared, thresholds may be for the tasks of a bundle.
    """
    tasks_by_name = {task.name: task for task in tasks}
    for name, by_action in thresholds.items():
        if task_names and name not in task_names:
            declared, nearest = ", ".join(dict.fromkeys(task_names)), describe_nearest(name, task_names)
            yield f"`thresholds.{name}` should be of a declared task: {declared}. Found none of that name{nearest}."
        if (task := tasks_by_name.get(name)) and not takes_thresholds(task):
            yield (
                f"`thresholds.{name}` should be of a binary or graded task of graph {DECIDE.name}. "
                f"Found a {task.kind} task of graph {task.graph}."
            )
        review, decline = by_action.get("review", 0.0), by_action.get("decline", 1.0)
        if review > decline:
            yield f"`thresholds.{name}.review` should be no more than its `decline`, {decline:g}. Found {review:g}."
