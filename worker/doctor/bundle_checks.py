"""What is wrong with the folder of bundles, the bundle that serves, and the thresholds for its tasks."""

from collections.abc import Iterator
from typing import Final

from contract.bundle import Bundle, current_version, read_bundle
from contract.errors import BadBundle, BadConfig
from contract.features.declaration import FeatureSet
from contract.features.sources import describe_nearest
from contract.graphs import DECIDE, RECOMMEND, find_missing_tasks
from contract.object_folder import open_folder
from contract.settings.reading import Settings
from contract.settings.tasks import takes_thresholds
from worker.doctor.finding import Finding, Severity, approve

LANE_GRAPHS: Final = {"orders": DECIDE, "browsing": RECOMMEND}  # without which a lane's answers are degraded
PUBLISH: Final = "python -m export --latest"


def check_bundle(settings: Settings, features: FeatureSet) -> Iterator[Finding]:
    """The verdict on the serving bundle; its graphs are not run, which `python -m export verify` does."""
    try:
        folder = open_folder(settings.bundle_store) if settings.bundle_store else settings.bundles.absolute()
    except BadConfig as error:
        yield from (Finding(Severity.ERROR, f"bundles {settings.bundle_store}", text) for text in error.errors)
        return
    subject, name = f"bundles {folder}", "bundle_store" if settings.bundle_store else "bundles"
    try:
        if not folder.is_dir():
            text = f"`{name}` should be a folder that this process may read. Found none."
            yield Finding(Severity.WARNING, subject, text, PUBLISH)
            return
        version = current_version(folder)
        if version is None:
            text = "The folder should have a current bundle. Found none: answers are `degraded`."
            yield Finding(Severity.WARNING, subject, text, PUBLISH)
            return
        bundle = read_bundle(folder, version)
    except BadBundle as error:
        yield Finding(Severity.ERROR, subject, str(error), "python -m export rollback")
        return
    except OSError as error:  # of an object store
        yield Finding(Severity.ERROR, subject, f"`{name}` should answer. Found: {error}")
        return
    mistakes = [
        *find_unfit_features(bundle, features),
        *find_missing_tasks(bundle.manifest.tasks),
        *find_unknown_thresholds(settings, bundle),
    ]
    yield from (Finding(Severity.ERROR, f"bundle {version}", text) for text in mistakes)
    yield from find_missing_graphs(bundle)
    if not mistakes:
        tasks = ", ".join(task.name for task in bundle.manifest.tasks)
        yield approve(f"bundle {version}", f"{len(bundle.manifest.features)} features as declared; tasks {tasks}.")


def read_learned(settings: Settings) -> dict[str, int] | None:
    """How far the serving bundle's learner has read, by "topic/partition@id"; None without a readable bundle."""
    try:
        folder = open_folder(settings.bundle_store) if settings.bundle_store else settings.bundles.absolute()
        version = current_version(folder) if folder.is_dir() else None
        return read_bundle(folder, version).manifest.positions if version else None
    except (BadBundle, BadConfig, OSError):
        return None  # `check_bundle` says why


def find_missing_graphs(bundle: Bundle) -> Iterator[Finding]:
    """The lanes whose answers are degraded with this bundle."""
    for lane, graph in LANE_GRAPHS.items():
        if f"{graph.name}.onnx" not in bundle.files:
            yield Finding(
                Severity.WARNING,
                f"bundle {bundle.manifest.version} lane {lane}",
                f"The bundle should have the graph {graph.name}. Found none: answers of this lane are "
                "`degraded`. Declare a task of it in `[[tasks]]` and train on events that it learns from (see "
                "docs/history.md), unless no worker of this lane runs.",
                "python -m training fit",
            )


def find_unfit_features(bundle: Bundle, features: FeatureSet) -> Iterator[str]:
    """Features that the bundle needs and workers do not have: of another meaning, or columns of a table."""
    needed = bundle.manifest.features
    if unfit := [name for name, digest in needed.items() if features.digests.get(name) != digest]:
        yield f"Features should be declared as they were in training. Found others: {', '.join(unfit)}."
    if columns := [f.name for f in features.features if f.name in needed and f.column is not None]:
        yield f"A bundle should need features of events alone. Found columns of a table: {', '.join(columns)}."


def find_unknown_thresholds(settings: Settings, bundle: Bundle) -> Iterator[str]:
    """Thresholds in the settings that the bundle has no probability for.

    A bundle without the graph that decides orders lacks all declared ones, which `find_missing_graphs` tells.
    """
    waiting = [] if f"{DECIDE.name}.onnx" in bundle.files else [task.name for task in settings.tasks]
    tasks = [task.name for task in bundle.manifest.tasks if takes_thresholds(task)]
    for name in settings.thresholds:
        if name not in (*tasks, *waiting):
            nearest = describe_nearest(name, tasks)
            yield (
                f"`thresholds.{name}` should be of a task by which the bundle decides orders: "
                f"{', '.join(tasks) or 'none'}. Found `{name}`{nearest}."
            )
