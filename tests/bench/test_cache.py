"""Cached results: what is measured is kept until the code changes, and an interrupted bench continues."""

from pathlib import Path

import msgspec
import pytest

from bench.results.cache import ResultCache, load_or_make


class Figure(msgspec.Struct, frozen=True):
    value: float


def open_cache(path: Path | None, digest: str = "this code") -> ResultCache[Figure]:
    return ResultCache(path=path, digest=digest, result_type=Figure)


def test_a_result_is_measured_once_and_read_back_by_the_next_run(tmp_path: Path) -> None:
    # given
    path = tmp_path / "folder" / "results.json"
    open_cache(path).record("a", Figure(1.5))

    # when
    again = open_cache(path)

    # then
    assert again.get_or_measure("a", lambda: pytest.fail("measured again")) == Figure(1.5)
    assert again.find_missing(["a", "b"]) == ["b"]
    assert again["a"] == Figure(1.5)


def test_results_of_other_code_are_measured_again(tmp_path: Path) -> None:
    open_cache(tmp_path / "results.json").record("a", Figure(1.5))

    other = open_cache(tmp_path / "results.json", "other code")

    assert other.get_or_measure("a", lambda: Figure(2.5)) == Figure(2.5)


@pytest.mark.parametrize("content", ["", "no JSON", '{"code": "this code", "tries": {}}'])
def test_a_file_of_another_format_counts_as_empty(tmp_path: Path, content: str) -> None:
    (tmp_path / "results.json").write_text(content)

    assert open_cache(tmp_path / "results.json").find_missing(["a"]) == ["a"]


def test_the_seconds_of_all_runs_are_summed(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text('{"digest": "this code", "seconds": 90.0, "results": {}}')

    cache = open_cache(path)
    cache.record("a", Figure(1.0))

    assert 90.0 <= cache.seconds < 100.0


def test_without_a_path_results_are_kept_in_memory(tmp_path: Path) -> None:
    cache = open_cache(None)
    cache.record("a", Figure(1.0))

    assert cache["a"] == Figure(1.0)
    assert not list(tmp_path.iterdir())


def test_a_file_is_made_again_after_a_change_of_code_or_an_interruption(tmp_path: Path) -> None:
    # given
    path, calls = tmp_path / "folder" / "made.txt", list[str]()

    def load(digest: str, *, interrupted: bool = False) -> str:
        def make() -> None:
            path.write_text(digest)
            calls.append(digest)
            if interrupted:
                raise KeyboardInterrupt

        return load_or_make(path, digest, make, read=Path.read_text)

    # when
    texts = [load("one"), load("one"), load("two")]
    with pytest.raises(KeyboardInterrupt):
        load("three", interrupted=True)
    texts.append(load("three"))

    # then
    assert texts == ["one", "one", "two", "three"]
    assert calls == ["one", "two", "three", "three"]
