"""What the doctor finds in the folder of bundles."""

from pathlib import Path

import msgspec

from contract.bundle import Bundle
from contract.features.declaration import FeatureSet
from contract.settings.reading import Settings
from contract.tasks import Task
from testkit.environment.tiny_bundle import make_manifest, publish_tiny
from tests.worker.events import FEATURES
from worker.doctor.bundle_checks import check_bundle, find_unanswered, find_unknown_thresholds
from worker.doctor.finding import Finding, Severity


def check(folder: Path, features: FeatureSet = FEATURES) -> list[Finding]:
    return list(
        check_bundle(Settings().model_copy(update={"bundles": folder, "tasks": (), "thresholds": {}}), features)
    )


def test_a_folder_that_does_not_exist_or_has_no_bundle_is_found_with_its_path(tmp_path: Path) -> None:
    for folder, words in ((tmp_path / "none", "readable"), (tmp_path, "current bundle")):
        (finding,) = check(folder)
        assert finding.severity == Severity.WARNING
        assert str(folder) in finding.subject
        assert words in finding.text or "may read" in finding.text


def test_a_bundle_that_serves_is_approved(tmp_path: Path) -> None:
    publish_tiny(tmp_path, "v1")
    (finding,) = check(tmp_path)
    assert (finding.severity, finding.subject) == (Severity.OK, "bundle v1")


def test_a_bundle_with_a_changed_file_is_an_error(tmp_path: Path) -> None:
    publish_tiny(tmp_path, "v1")
    (tmp_path / "v1" / "golden.npz").write_bytes(b"")
    (finding,) = check(tmp_path)
    assert finding.severity == Severity.ERROR
    assert "digest" in finding.text


def test_features_that_are_not_declared_as_in_training_are_errors(tmp_path: Path) -> None:
    publish_tiny(tmp_path, "v1")
    (finding,) = check(tmp_path, FeatureSet([]))
    assert finding.severity == Severity.ERROR
    assert "as they were in training" in finding.text


def test_a_threshold_for_a_task_that_the_bundle_lacks_is_found_with_the_nearest() -> None:
    fraud = Task(name="fraud", kind="binary", groups=("user",), graph="decide")
    bundle = Bundle(msgspec.structs.replace(make_manifest("v1"), tasks=(fraud,)), {})
    thresholds = {"fruad": {"review": 0.5}, "fraud": {"review": 0.5}}
    (text,) = find_unknown_thresholds(Settings().model_copy(update={"thresholds": thresholds, "tasks": ()}), bundle)
    assert text == "`thresholds.fruad` should be of a task of the bundle: fraud. Found none; the nearest is `fraud`."


def test_a_bundle_without_a_declared_task_that_workers_answer_is_found() -> None:
    click = Task(name="click", kind="binary", groups=("user",), graph="recommend")
    purchase = Task(name="purchase", kind="binary", groups=("user",), graph="recommend")
    fraud = Task(name="fraud", kind="binary", groups=("user",), graph="decide")
    bundle = Bundle(msgspec.structs.replace(make_manifest("v1"), tasks=(fraud,)), {})
    settings = Settings().model_copy(update={"tasks": (click, purchase, fraud)})
    (text,) = find_unanswered(settings, bundle)
    assert text.startswith("The bundle should have the task `click`. Found fraud: lists have candidates in their order")
    assert not list(find_unanswered(settings.model_copy(update={"tasks": (fraud,)}), bundle))
