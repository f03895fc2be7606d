"""Which rights the user of Kafka lacks: those on topics are asked for, groups and transactional ids are tried.

Nothing is written and no group is joined.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

from contract.errors import Unavailable
from contract.settings.reading import Settings
from worker.doctor.finding import Finding, Severity, approve
from worker.kafka.topic_owner import is_denied
from worker.ops.denied_rights import Grants, list_operations


def check_topic_rights(settings: Settings, operations: Mapping[str, Iterable[str]]) -> Iterator[Finding]:
    """What the user may not do with topics; `operations`: what it may, by topic, of those with an answer."""
    missing = dict[str, list[str]]()
    for kind, name in settings.topics.names_by_kind().items():
        allowed = set(operations.get(name, ()))
        needed = list_operations(kind)
        if (
            name in operations
            and "ALL" not in allowed
            and (denied := [operation for operation in needed if operation not in allowed])
        ):
            missing[name] = denied
    grants = Grants.of(settings.kafka)
    for name, denied in missing.items():
        yield Finding(
            Severity.WARNING,
            name,
            f"A process that does it should be allowed {' and '.join(denied)}. Found it denied to this user.",
            grants.topic(name, denied),
        )
    if operations and not missing:
        yield approve(
            "rights on topics", f"This user may read and write what processes do, of {len(operations)} topics."
        )


def try_right(subject: str, attempt: Callable[[], object], command: str) -> Finding:
    """The verdict on a right that is tried; an error of another kind is a warning too."""
    try:
        attempt()
    except Unavailable as error:
        denied = "Found it denied." if is_denied(error) else f"Found: {error}"
        return Finding(Severity.WARNING, subject, f"This user should be allowed to use it. {denied}", command)
    return approve(subject, "This user may use it.")
