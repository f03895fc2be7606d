"""Whether a network can be built as `shop.toml` declares it: tasks that its graphs can answer, with its experts."""

from collections.abc import Mapping, Sequence

from contract.errors import BadConfig
from contract.features.declaration import FeatureSet
from contract.graphs import GRAPHS
from contract.settings.model import ModelConfig
from contract.tasks import Task


def check_tasks(tasks: Sequence[Task], features: FeatureSet) -> None:
    """Raises `BadConfig` with every reason why one network could not answer these tasks."""
    errors = find_mistakes(tasks, features)
    if not tasks:
        errors.insert(0, "At least one task should be declared. Found none.")
    if errors:
        raise BadConfig(errors)


def find_mistakes(tasks: Sequence[Task], features: FeatureSet) -> list[str]:
    """Every reason why one network could not answer these tasks, as sentences."""
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
    """Groups that a task reads alone have to be among those that it reads."""
    if foreign := set(task.alone) - set(task.groups):
        return [f"Task `{task.name}` should read alone what it reads. Found {sorted(foreign)}."]
    return []


def check_sharing(tasks: Sequence[Task], config: ModelConfig) -> None:
    """Raises `BadConfig` for tasks that may mix experts that the network does not have, or none at all."""
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
    """A chain of tasks has to end, and all its tasks have to read the same inputs."""
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
