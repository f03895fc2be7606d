"""The wording check finds what the style rules out, and only that."""

import ast
import subprocess
from pathlib import Path

import pytest

from checks.names import find_duplicate_classes, find_empty_names, find_participles, is_participle
from checks.wording import check, main
from checks.words import find_dialect


@pytest.mark.parametrize("name", ["moved", "_kept", "screened", "said_now", "found_rows"])
def test_a_participle_is_not_a_function_name(name: str) -> None:
    assert is_participle(name)


@pytest.mark.parametrize("name", ["move", "read_rows", "set_name", "feed", "need", "embed", "is_kept", "to_seconds"])
def test_a_verb_is_a_function_name(name: str) -> None:
    assert not is_participle(name)


def test_properties_and_fixtures_may_be_adjectives() -> None:
    source = (
        "class Book:\n    @property\n    def closed(self): ...\n@pytest.fixture\ndef sold(): ...\ndef bought(): ...\n"
    )

    names = [finding.text for finding in find_participles("a.py", ast.parse(source))]

    assert names == ["function `bought` should be named by a verb"]


def test_a_class_name_may_repeat_only_in_another_package() -> None:
    trees = [(path, ast.parse("class Log: ...")) for path in ("worker/a.py", "worker/b.py", "training/c.py")]

    assert [str(finding) for finding in find_duplicate_classes(trees)] == [
        "worker/b.py:1: class `Log` is also defined at worker/a.py:1"
    ]


def test_a_variable_named_by_a_preposition_is_found_and_an_attribute_is_not() -> None:
    source = "def add(of, total):\n    one = total\n    total.at = of\n"

    names = [(finding.line, finding.text.split("`")[1]) for finding in find_empty_names("a.py", ast.parse(source))]

    assert sorted(names) == [(1, "of"), (2, "one")]


def test_listed_words_are_found_as_whole_words_in_any_case() -> None:
    text = "Nobody reads\na renewed lease\nbeside it, anew\n"

    assert [(finding.line, finding.text.split("`")[1]) for finding in find_dialect("a.md", text)] == [
        (1, "Nobody"),
        (3, "anew"),
        (3, "beside"),
    ]


def test_a_tree_with_findings_fails_the_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    (tmp_path / "shop.py").write_text("def taken(): ...\n")

    status = main([str(tmp_path)])

    assert status == 1
    assert "participle-named functions: 1\n" in capsys.readouterr().out
    (tmp_path / "shop.py").write_text("def take(): ...\n")
    assert not any(check(tmp_path).values())
