"""The file of rules: what it says from a change on, and the former rules while it cannot be used."""

import os
from pathlib import Path

import pytest

from contract.errors import BadConfig
from testkit.metrics import read_metric
from tests.worker.events import FEATURES
from worker.ops import metrics
from worker.rules.rule_file import RuleFile

HIDE = '[[rules]]\nname = "hide"\naction = "exclude"\nbrands = ["north"]\n'
PIN = '[[rules]]\nname = "pin"\naction = "pin"\nitems = ["i1"]\n'


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def poll_names(file: RuleFile, times: int = 2) -> list[str]:
    for _ in range(times):
        file.poll()
    return [rule.name for rule in file.rules]


def test_a_changed_file_is_read_once_it_stays_the_same(tmp_path: Path) -> None:
    path = write(tmp_path / "rules.toml", HIDE)
    file = RuleFile(path, FEATURES)

    write(path, HIDE + PIN)

    assert poll_names(file, times=1) == ["hide"]
    assert poll_names(file, times=1) == ["hide", "pin"]
    assert not file.poll()


def test_a_file_that_is_being_written_is_not_read(tmp_path: Path) -> None:
    path = write(tmp_path / "rules.toml", HIDE + PIN)
    file = RuleFile(path, FEATURES)
    write(path, HIDE)  # valid, but it goes on
    file.poll()
    write(path, HIDE + PIN.replace("pin", "other", 1))

    assert poll_names(file, times=1) == ["hide", "pin"]
    assert poll_names(file, times=1) == ["hide", "other"]


@pytest.mark.parametrize("text", ["", "[[rules", HIDE + HIDE, HIDE.replace("exclude", "exlude"), "\udcff"])
def test_a_file_that_is_wrong_leaves_the_former_rules_and_is_told_once(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "rules.toml", HIDE)
    file = RuleFile(path, FEATURES)
    path.write_bytes(text.encode(errors="surrogateescape"))

    assert poll_names(file, times=5) == ["hide"]
    assert read_metric(metrics.LIST_RULES_REFUSED) == 1
    assert file.refused
    assert len([record for record in caplog.records if "former list rules stay" in record.message]) == 1
    # when it is right again
    write(path, PIN)
    assert poll_names(file) == ["pin"]
    assert read_metric(metrics.LIST_RULES_REFUSED) == 0
    assert not file.refused


def test_a_deleted_file_leaves_the_former_rules(tmp_path: Path) -> None:
    path = write(tmp_path / "rules.toml", HIDE)
    file = RuleFile(path, FEATURES)
    path.unlink()

    assert poll_names(file, times=3) == ["hide"]
    assert file.refused.startswith("`lists.rules` should be a file")
    write(path, HIDE)
    assert poll_names(file, times=3) == ["hide"]
    assert not file.refused


def test_a_link_to_a_folder_that_is_moved_to_another_one_is_followed(tmp_path: Path) -> None:
    # given a file as Kubernetes mounts a ConfigMap: a link into ..data, which is a link to a folder
    for name, text in (("first", HIDE), ("second", PIN)):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "rules.toml", text)
    (tmp_path / "..data").symlink_to("first")
    (tmp_path / "rules.toml").symlink_to("..data/rules.toml")
    file = RuleFile(tmp_path / "rules.toml", FEATURES)
    # when
    (tmp_path / "..data_tmp").symlink_to("second")
    os.replace(tmp_path / "..data_tmp", tmp_path / "..data")
    # then
    assert poll_names(file) == ["pin"]


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = write(tmp_path / "rules.toml", f"\ufeff{HIDE}")

    assert [rule.name for rule in RuleFile(path, FEATURES).rules] == ["hide"]


def test_a_file_without_rules_ends_them(tmp_path: Path) -> None:
    path = write(tmp_path / "rules.toml", HIDE)
    file = RuleFile(path, FEATURES)

    write(path, "rules = []")

    assert poll_names(file) == []


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "`rules` should be given"),
        ("rules = 5", "`rules` should be a valid tuple. Found 5."),
        (HIDE + "factor = 2", "rule `hide`: `rules.0` should have `factor` only in a `boost`, not in a `exclude`."),
        (HIDE.replace("brands", "brand"), "Found none of that name; the nearest is `brands`."),
        (HIDE.replace('["north"]', '"north"'), "`rules.0.brands` should be a list with at least one entry."),
        (HIDE.replace('["north"]', "[]"), "`rules.0.brands` should be a list with at least one entry."),
        (HIDE.replace('brands = ["north"]', ""), "should say which items it is about"),
        (HIDE.replace('brands = ["north"]', "price = {min = 5, max = 1}"), "a `min` that is no more than its `max`"),
        (HIDE.replace('brands = ["north"]', "price = {min = nan}"), "`rules.0.price.min` should be a finite number"),
        (HIDE.replace('"hide"', '"a, b"'), "should have no comma"),
        (HIDE + 'lists = ["persnal"]', "the nearest is `personal`"),
        (HIDE + "starts = 2026-01-01T00:00:00", "should have timezone info"),
        (HIDE + "starts = 2026-01-02T00:00:00Z\nends = 2026-01-01T00:00:00Z", "should start before it ends"),
        (HIDE + HIDE, "rules should have names of their own. Found `hide` twice."),
        (HIDE.replace("brands", "features").replace('["north"]', '{x = {equals = "a"}}'), "declared category"),
        (PIN + "position = 0", "`rules.0.position` should be greater than 0"),
        (PIN.replace("items", "brands"), "should have `items`, which a `pin` needs"),
        *[
            (f'[[rules]]\nname = "b"\naction = "boost"\nitems = ["i"]\nfactor = {factor}', "`rules.0.factor` should")
            for factor in ("0", "-1", "nan", "inf", "true", "1e9")
        ],
        ('[[rules]]\nname = "h"\naction = "hide"\nafter = "bought"', "should have `days`, which a `hide` needs"),
        ('[[rules]]\nname = "c"\naction = "cap"\nmax = 2', "should have a `per`"),
        ('[[rules]]\nname = "c"\naction = "cap"\nmax = -1\nper = "brand"', "greater than or equal to 0"),
        ('[[rules]]\nname = "d"\naction = "diversify"\nstrength = 2', "less than or equal to 1"),
    ],
)
def test_what_is_wrong_is_refused_at_start_with_what_should_hold_and_what_was_found(
    tmp_path: Path, text: str, sentence: str
) -> None:
    with pytest.raises(BadConfig) as refused:
        RuleFile(write(tmp_path / "rules.toml", text), FEATURES)

    assert sentence in "\n".join(refused.value.errors)
    assert all("rules.toml" in error for error in refused.value.errors)


def test_a_missing_file_is_refused_at_start(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"`lists\.rules` should be a file that can be read"):
        RuleFile(tmp_path / "none.toml", FEATURES)
