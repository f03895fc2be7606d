"""What the doctor finds in the folder of bundles."""

from pathlib import Path

import msgspec

from contract.bundle import Bundle, publish
from contract.features.declaration import FeatureSet
from contract.settings.reading import Settings
from contract.tasks import Task
from testkit.environment.tiny_bundle import make_manifest, publish_tiny, tiny_files
from tests.worker.events import FEATURES
from worker.doctor.bundle_checks import check_bundle, find_missing_graphs, find_unknown_thresholds
from worker.doctor.finding import Finding, Severity


def check(folder: Path, features: FeatureSet = FEATURES) -> list[Finding]:
    return list(check_bundle(Settings().model_copy(update={"bundles": folder}), features))


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


def test_a_bundle_in_an_object_store_is_looked_at_there(tmp_path: Path) -> None:
    # given a store that has one, while the folder has none
    url = f"local://{tmp_path / 'store'}"
    settings = Settings().model_copy(update={"bundles": tmp_path / "none", "bundle_store": url})
    (missing,) = check_bundle(settings, FEATURES)
    publish_tiny(tmp_path / "store", "v1")
    (verdict,) = check_bundle(settings, FEATURES)
    # then
    assert (missing.severity, missing.subject) == (Severity.WARNING, f"bundles {url}")
    assert (verdict.severity, verdict.subject) == (Severity.OK, "bundle v1")


def test_a_store_without_a_client_is_an_error() -> None:
    settings = Settings().model_copy(update={"bundle_store": "s4://shop/bundles"})
    (finding,) = check_bundle(settings, FEATURES)
    assert (finding.severity, finding.subject) == (Severity.ERROR, "bundles s4://shop/bundles")


def test_a_lane_that_the_bundle_has_no_graph_for_is_found() -> None:
    bundle = Bundle(make_manifest("v1"), {"decide.onnx": b""})
    (finding,) = find_missing_graphs(bundle)
    assert (finding.severity, finding.subject) == (Severity.WARNING, "bundle v1 lane browsing")
    assert "the graph recommend" in finding.text


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


FRAUD = Task(name="fraud", kind="binary", groups=("user",), graph="decide")
ABUSE = msgspec.structs.replace(FRAUD, name="abuse")


def make_bundle(*tasks: Task, files: tuple[str, ...] = ("decide.onnx",)) -> Bundle:
    return Bundle(msgspec.structs.replace(make_manifest("v1"), tasks=tasks), dict.fromkeys(files, b""))


def declare(tasks: tuple[Task, ...], *thresholds: str) -> Settings:
    by_task = {name: {"review": 0.5} for name in thresholds}
    return Settings().model_copy(update={"thresholds": by_task, "tasks": tasks})


def test_a_threshold_for_a_task_that_the_bundle_lacks_is_found_with_the_nearest() -> None:
    (text,) = find_unknown_thresholds(declare((), "fruad", "fraud"), make_bundle(FRAUD))
    assert text == (
        "`thresholds.fruad` should be of a task by which the bundle decides orders: fraud. "
        "Found `fruad`; the nearest is `fraud`."
    )


def test_a_threshold_for_a_declared_task_that_the_bundle_s_graph_lacks_is_found() -> None:
    (text,) = find_unknown_thresholds(declare((FRAUD, ABUSE), "fraud", "abuse"), make_bundle(ABUSE))
    assert text == "`thresholds.fraud` should be of a task by which the bundle decides orders: abuse. Found `fraud`."


def test_a_threshold_for_a_task_of_the_bundle_that_decides_no_order_is_found() -> None:
    click = msgspec.structs.replace(FRAUD, name="click", graph="recommend")
    (text,) = find_unknown_thresholds(declare((), "click"), make_bundle(click, FRAUD))
    assert text == "`thresholds.click` should be of a task by which the bundle decides orders: fraud. Found `click`."


def test_a_bundle_without_the_graph_that_decides_is_found_by_its_graph_and_not_by_each_threshold() -> None:
    settings, bundle = declare((FRAUD,), "fraud"), make_bundle(files=("recommend.onnx",))
    assert not list(find_unknown_thresholds(settings, bundle))
    assert [finding.subject for finding in find_missing_graphs(bundle)] == ["bundle v1 lane orders"]


def test_a_graph_without_the_task_that_workers_need_is_an_error(tmp_path: Path) -> None:
    # given
    publish(tmp_path, make_bundle(ABUSE).manifest, tiny_files())
    # when
    texts = [finding.text for finding in check(tmp_path) if finding.severity == Severity.ERROR]
    # then
    assert (
        "A bundle with the graph decide should have the task fraud, without which workers refuse it. Found abuse."
    ) in texts
