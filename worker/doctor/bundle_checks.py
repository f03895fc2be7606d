"""What is wrong with the folder of bundles, the bundle that serves, and the thresholds for its tasks."""

from collections.abc import Iterator
from typing import Final

from contract.bundle import Bundle, current_version, read_bundle
from contract.errors import BadBundle
from contract.features.declaration import FeatureSet
from contract.features.sources import describe_nearest
from contract.graphs import DECIDE, RECOMMEND
from contract.settings.reading import Settings
from worker.doctor.finding import Finding, Severity, approve

UNANSWERED: Final = {
    RECOMMEND.name: "lists have candidates in their order, not ranked by a model",
    DECIDE.name: "orders are decided by rules alone",
}
PUBLISH: Final = "python -m export --latest"


def check_bundle(settings: Settings, features: FeatureSet) -> Iterator[Finding]:
    """The verdict on the serving bundle; its graphs are not run, which `python -m export verify` does."""
    folder = settings.bundles.absolute()
    subject = f"bundles {folder}"
    if not folder.is_dir():
        yield Finding(Severity.WARNING, subject, "`bundles` should be a folder that this process may read. Found none.")
        return
    try:
        version = current_version(folder)
        if version is None:
            text = "The folder should have a current bundle. Found none: answers are `degraded`."
            yield Finding(Severity.WARNING, subject, text, PUBLISH)
            return
        bundle = read_bundle(folder, version)
    except BadBundle as error:
        yield Finding(Severity.ERROR, subject, str(error), "python -m export rollback")
        return
    mistakes = [*find_unfit_features(bundle, features), *find_unknown_thresholds(settings, bundle)]
    yield from (Finding(Severity.ERROR, f"bundle {version}", text) for text in mistakes)
    if not mistakes:
        tasks = ", ".join(task.name for task in bundle.manifest.tasks)
        yield approve(f"bundle {version}", f"{len(bundle.manifest.features)} features as declared; tasks {tasks}.")
    yield from (Finding(Severity.WARNING, f"bundle {version}", text) for text in find_unanswered(settings, bundle))


def find_unanswered(settings: Settings, bundle: Bundle) -> Iterator[str]:
    """Declared tasks that workers answer with and the bundle lacks: `fit` leaves out tasks without labels."""
    tasks, declared = ({task.name for task in source} for source in (bundle.manifest.tasks, settings.tasks))
    for graph in (RECOMMEND, DECIDE):
        for name in declared & set(graph.outputs) - tasks:
            yield (
                f"The bundle should have the task `{name}`. Found {', '.join(sorted(tasks)) or 'none'}: "
                f"{UNANSWERED[graph.name]}. docs/history.md says which events a task learns from."
            )


def find_unfit_features(bundle: Bundle, features: FeatureSet) -> Iterator[str]:
    """Features that the bundle needs and workers do not have: of another meaning, or columns of a table."""
    needed = bundle.manifest.features
    if unfit := [name for name, digest in needed.items() if features.digests.get(name) != digest]:
        yield f"Features should be declared as they were in training. Found others: {', '.join(unfit)}."
    if columns := [f.name for f in features.features if f.name in needed and f.column is not None]:
        yield f"A bundle should need features of events alone. Found columns of a table: {', '.join(columns)}."


def find_unknown_thresholds(settings: Settings, bundle: Bundle) -> Iterator[str]:
    """Thresholds in the settings for tasks that neither they nor the bundle have."""
    declared = [task.name for task in settings.tasks]
    tasks = [task.name for task in bundle.manifest.tasks]
    for name in settings.thresholds:
        if name not in (*tasks, *declared):
            nearest = describe_nearest(name, tasks)
            yield f"`thresholds.{name}` should be of a task of the bundle: {', '.join(tasks)}. Found none{nearest}."
