"""`python -m bench` lists its benches and runs the named one."""

import pytest

from bench.__main__ import BENCHES, main


@pytest.mark.parametrize("words", [[], ["nothing"]])
def test_an_unknown_bench_is_an_error_that_lists_all_benches(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    printed = capsys.readouterr().err
    assert all(name in printed for name in BENCHES)


def test_help_names_every_bench(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in BENCHES)


@pytest.mark.parametrize("name", sorted(BENCHES))
def test_every_bench_lists_its_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        BENCHES[name].load().main(["--help"])
    assert "--json" in capsys.readouterr().out
