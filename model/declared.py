"""What `shop.toml` declares of the network: its shape under [model], and tasks that its graphs can answer."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from contract.errors import BadConfig
from contract.features import FeatureSet
from contract.tasks import Task

Size = Annotated[int, Meta(ge=1, le=65_536)]

# The groups whose blocks each graph takes; see `contract.bundle`.
GRAPH_GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "recommend": ("user", "context", "item"),
    "decide": ("user", "order", "context"),
    "review": ("user", "review", "item"),
    "search": ("user", "query", "item"),
    "classify": ("item",),
}
PAIRED: Final = ("recommend", "search")  # graphs that take the item's finished part in place of its block


class Shape(Struct, frozen=True, forbid_unknown_fields=True):
    """How wide each layer is. `experts = 1` is shared-bottom; `factors = 0` leaves products of groups out.

    `rows` bounds every embedding table; a table has about four rows for each id of the training part.
    """

    embedding: Size = 16
    hidden: Size = 64
    factors: Annotated[int, Meta(ge=0, le=65_536)] = 16
    experts: Size = 4
    expert: Size = 64
    tower: Size = 32
    rows: Annotated[int, Meta(ge=64, le=2**26)] = 16_384


def read_shape(table: Mapping[str, object]) -> Shape:
    """The shape that the [model] table declares; raises `BadConfig`."""
    try:
        return msgspec.convert(table, Shape, strict=False)
    except msgspec.ValidationError as error:
        raise BadConfig([f"[model] should declare a network's shape. Found: {error}"]) from error


def check_tasks(tasks: Sequence[Task], features: FeatureSet) -> None:
    """Raises `BadConfig` with every reason why one network could not answer these tasks."""
    if errors := ["At least one task should be declared. Found none."] * (not tasks) + mistakes(tasks, features):
        raise BadConfig(errors)


def mistakes(tasks: Sequence[Task], features: FeatureSet) -> list[str]:
    """What is wrong with tasks, as sentences."""
    errors = list[str]()
    names = {feature.name: feature.group for feature in features.features}
    for task in tasks:
        if foreign := set(task.groups) - set(GRAPH_GROUPS[task.graph]):
            errors.append(f"Task `{task.name}` should read what graph {task.graph} is given. Found {sorted(foreign)}.")
        if empty := [group for group in task.groups if group not in names.values()]:
            errors.append(f"Task `{task.name}` should read groups that have features. Found none in {empty}.")
        if not task.groups:
            errors.append(f"Task `{task.name}` should read some group. Found none.")
        if lost := [name for name in task.hide if name not in names]:
            errors.append(f"Task `{task.name}` should hide declared features. Found {lost}.")
        if task.graph in PAIRED and any(names.get(name) == "item" for name in task.hide):
            errors.append(
                f"Task `{task.name}` shares the item's part, so it should hide none of it. Found {task.hide}."
            )
        if task.negative_rate < 1 and (task.kind != "binary" or task.through):
            errors.append(
                f"A negative rate should be that of a binary task that goes through no other. Found `{task.name}`."
            )
        errors += through_mistakes(task, {one.name: one for one in tasks})
    return errors


def through_mistakes(task: Task, tasks: Mapping[str, Task]) -> list[str]:
    """A chain of tasks has to end, and each must see what the one before it sees."""
    if task.through is None:
        return []
    before, seen = tasks.get(task.through), {task.name}
    if before is None:
        return [f"Task `{task.name}` should go through a declared task. Found `{task.through}`."]
    if (before.kind, task.kind) != ("binary", "binary"):
        return [f"Tasks that go through another should both be binary. Found `{task.name}`, `{before.name}`."]
    if (set(before.groups), set(before.hide), before.graph) != (set(task.groups), set(task.hide), task.graph):
        return [f"Task `{task.name}` should read what `{before.name}` reads, in its graph. Found otherwise."]
    while before is not None and before.through is not None:
        if before.name in seen:
            return [f"Task `{task.name}` should go through tasks that end. Found a circle."]
        seen.add(before.name)
        before = tasks.get(before.through)
    return []
