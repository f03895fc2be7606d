"""Labels: the value of each, read by the kind of its task."""

from collections.abc import Iterable
from typing import Final

from contract.errors import BadEvent
from contract.events.values import FLAGS, Unreadable, read_number, read_text
from contract.profiles.record import JUDGED_TASKS
from contract.tasks import LABEL_MAX, Task, TaskKind

FINDINGS: Final = {**FLAGS, "positive": True, "negative": False}
BAD: Final = ("bad", "confirmed", "fraudulent", "chargeback")
GOOD: Final = ("good", "ok", "legit", "legitimate", "genuine", "none")
# Of the tasks that are a judgement of something bad. Of another one, such as `satisfied`, "good" may be a yes.
VERDICTS: Final = {**FINDINGS, **dict.fromkeys(BAD, True), **dict.fromkeys(GOOD, False)}
WORD_MAX: Final = 128
ALLOWED: Final[dict[TaskKind, str]] = {
    "binary": "0 or 1, true or false, yes or no, or the task's name",
    "graded": "a number from 0 to 1, such as 0.75 for three stars of four",
    "regression": f"a number up to {LABEL_MAX:g}",
    "multiclass": f"the name of a class, 1 to {WORD_MAX} characters",
}


class LabelReader:
    """Reads labels of the declared tasks and of those that profiles count.

    Where no task is declared, those of a bundle are not known: labels of other tasks are then taken as they are.
    """

    def __init__(self, tasks: Iterable[Task] = ()) -> None:
        declared = {task.name: task.kind for task in tasks}
        kinds: dict[str, TaskKind] = {**dict.fromkeys(JUDGED_TASKS, "binary"), **declared}
        self._kinds = {name.lower(): (name, kind) for name, kind in kinds.items()}
        self._kinds |= {name: (name, kind) for name, kind in kinds.items()}  # names that differ in case alone
        self._is_closed = bool(declared)

    def read(self, task: str, value: object) -> tuple[str, float | str]:
        """The task's declared name, and the value by its kind; raises `BadEvent`."""
        name, kind = self._kinds.get(task) or self._kinds.get(task.strip().lower()) or (task, None)
        try:
            if kind is not None:
                return name, read_value(name, kind, value)
            if not self._is_closed:
                return name, value if isinstance(value, str) else read_bare_number(value)
        except Unreadable as error:
            allowed = describe_allowed(name, kind)
            raise BadEvent("bad_label", f"A label of `{name}` should be {allowed}. Found {value!r:.80}.") from error
        allowed = ", ".join(sorted({name for name, _ in self._kinds.values()}))
        raise BadEvent("bad_label", f"A label's task should be one of {allowed}. Found {task!r:.80}.")


def describe_allowed(task: str, kind: TaskKind | None) -> str:
    """What a label of a task may be, in the words of an error."""
    if kind is None:
        return "a number or a word"
    return ALLOWED[kind] + (", or a word such as legit" if task in JUDGED_TASKS else "")


def read_value(task: str, kind: TaskKind, value: object) -> float | str:
    """The value of a label of this kind; raises `Unreadable`."""
    if kind == "binary":
        return read_verdict(task, value)
    if kind == "multiclass":
        name = "" if isinstance(value, bool) else read_text(value)
        if not 1 <= len(name) <= WORD_MAX:
            raise Unreadable("Expected the name of a class")
        return name
    number = read_bare_number(value)
    if kind == "graded" and not 0 <= number <= 1:
        raise Unreadable("Expected a grade from 0 to 1")
    if abs(number) > LABEL_MAX:
        raise Unreadable(f"Expected a number up to {LABEL_MAX:g}")
    return number


def read_bare_number(value: object) -> float:
    """A number, also true and false as 1 and 0; raises `Unreadable`."""
    return float(value) if isinstance(value, bool) else read_number(value)


def read_verdict(task: str, value: object) -> float:
    """1 for yes, 0 for no; `not TASK` is no as well. Raises `Unreadable`."""
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        word = value.strip().lower().replace("_", " ").replace("-", " ")
        named = task.lower().replace("_", " ")
        if word in (named, f"not {named}", f"no {named}", f"non {named}"):
            return float(word == named)
        words = VERDICTS if task in JUDGED_TASKS else FINDINGS
        if word in words:
            return float(words[word])
    number = read_number(value)
    if number not in (0, 1):
        raise Unreadable("Expected 0 or 1")
    return number
