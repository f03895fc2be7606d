"""What `shop.toml` declares of the network: its shape under [model], and tasks that its graphs can answer."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from contract.errors import BadConfig
from contract.features.declaration import FeatureSet
from contract.graphs import GRAPHS
from contract.tasks import Task

Size = Annotated[int, Meta(ge=1, le=65_536)]


class ModelConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """What is shared and how wide each layer is; `model/network.py` draws it.

    `architecture`: `single` shares nothing but the features; `shared_bottom` has one expert for all tasks; `mmoe` mixes
    `experts` shared ones by a gate of each task; `ple` has `own` experts of each task beside them, over `levels`.
    `factors`: width of the products of groups, 0 for none. `cross`: cross layers within each group, of `cross_rank`
    (0: full). `bins`: of each number, 0 for none. `members`: small networks that share their weights and vote.
    `dropout`: while learning. `rows` bounds every embedding table.
    """

    architecture: Literal["single", "shared_bottom", "mmoe", "ple"] = "mmoe"

    embedding: Size = 16
    hidden: Size = 64
    factors: Annotated[int, Meta(ge=0, le=65_536)] = 16
    experts: Size = 4
    expert: Size = 64
    tower: Size = 32
    rows: Annotated[int, Meta(ge=64, le=2**26)] = 16_384
    own: Size = 1
    levels: Annotated[int, Meta(ge=1, le=8)] = 1
    cross: Annotated[int, Meta(ge=0, le=8)] = 0
    cross_rank: Annotated[int, Meta(ge=0, le=65_536)] = 0
    bins: Annotated[int, Meta(ge=0, le=256)] = 0
    members: Annotated[int, Meta(ge=1, le=64)] = 1
    dropout: Annotated[float, Meta(ge=0, lt=1)] = 0.0

    @property
    def shared_experts(self) -> int:
        """Experts that more than one task may mix."""
        return {"single": 0, "shared_bottom": 1}.get(self.architecture, self.experts)

    @property
    def own_experts(self) -> int:
        """Experts that each task has to itself."""
        return {"single": 1, "ple": self.own}.get(self.architecture, 0)

    @property
    def cgc_levels(self) -> int:
        return self.levels if self.architecture == "ple" else 1


def read_model_config(table: Mapping[str, object]) -> ModelConfig:
    """The shape that the [model] table declares; raises `BadConfig`."""
    try:
        return msgspec.convert(table, ModelConfig, strict=False)
    except msgspec.ValidationError as error:
        raise BadConfig([f"[model] should declare a network's shape. Found: {error}"]) from error


def check_tasks(tasks: Sequence[Task], features: FeatureSet) -> None:
    """Raises `BadConfig` with every reason why one network could not answer these tasks."""
    if errors := ["At least one task should be declared. Found none."] * (not tasks) + find_mistakes(tasks, features):
        raise BadConfig(errors)


def find_mistakes(tasks: Sequence[Task], features: FeatureSet) -> list[str]:
    """What is wrong with tasks, as sentences."""
    errors = list[str]()
    names = {feature.name: feature.group for feature in features.features}
    for task in tasks:
        if foreign := set(task.groups) - set(GRAPHS[task.graph].groups):
            errors.append(f"Task `{task.name}` should read what graph {task.graph} is given. Found {sorted(foreign)}.")
        if empty := [group for group in task.groups if group not in names.values()]:
            errors.append(f"Task `{task.name}` should read groups that have features. Found none in {empty}.")
        if not task.groups:
            errors.append(f"Task `{task.name}` should read some group. Found none.")
        if undeclared := [name for name in task.hide if name not in names]:
            errors.append(f"Task `{task.name}` should hide declared features. Found {undeclared}.")
        if GRAPHS[task.graph].is_paired and any(names.get(name) == "item" for name in task.hide):
            errors.append(
                f"Task `{task.name}` shares the item's part, so it should hide none of it. Found {task.hide}."
            )
        errors += find_sharing_mistakes(task)
        if task.negative_rate < 1 and (task.kind != "binary" or task.through):
            errors.append(
                f"A negative rate should be that of a binary task that goes through no other. Found `{task.name}`."
            )
        errors += find_through_mistakes(task, {other.name: other for other in tasks})
    return errors


def find_sharing_mistakes(task: Task) -> list[str]:
    """What a task may not share has to be among what it reads."""
    if foreign := set(task.alone) - set(task.groups):
        return [f"Task `{task.name}` should read alone what it reads. Found {sorted(foreign)}."]
    return []


def check_sharing(tasks: Sequence[Task], config: ModelConfig) -> None:
    """Raises `BadConfig` for tasks that may mix experts which the shape does not have, or none at all."""
    count, errors = config.shared_experts, list[str]()
    for task in tasks:
        named = () if task.experts is None else task.experts
        if foreign := [number for number in named if number >= count]:
            errors.append(f"Task `{task.name}` should mix experts below {count}. Found {foreign}.")
        if task.experts == () and not config.own_experts:
            errors.append(f"Task `{task.name}` should have some expert, its own or a shared one. Found none.")
    if errors:
        raise BadConfig(errors)


def find_through_mistakes(task: Task, tasks: Mapping[str, Task]) -> list[str]:
    """A chain of tasks has to end, and each must see what the one before it sees."""
    if task.through is None:
        return []
    before, visited = tasks.get(task.through), {task.name}
    if before is None:
        return [f"Task `{task.name}` should go through a declared task. Found `{task.through}`."]
    if (before.kind, task.kind) != ("binary", "binary"):
        return [f"Tasks that go through another should both be binary. Found `{task.name}`, `{before.name}`."]
    if visible_inputs(before) != visible_inputs(task):
        return [f"Task `{task.name}` should read what `{before.name}` reads, in its graph. Found otherwise."]
    if set(before.alone) != set(task.alone):
        return [f"Task `{task.name}` should read alone what `{before.name}` does. Found {task.alone}, {before.alone}."]
    while before is not None and before.through is not None:
        if before.name in visited:
            return [f"Task `{task.name}` should go through tasks that end. Found a circle."]
        visited.add(before.name)
        before = tasks.get(before.through)
    return []


def visible_inputs(task: Task) -> tuple[frozenset[str], frozenset[str], str]:
    return frozenset(task.groups), frozenset(task.hide), task.graph
