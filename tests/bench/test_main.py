"""`python -m bench` finds its benches and says what there is."""

import pytest

from bench.__main__ import BENCHES, main


@pytest.mark.parametrize("words", [[], ["nothing"]])
def test_a_bench_that_does_not_exist_is_a_mistake_that_names_those_that_do(
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
def test_every_bench_tells_its_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        BENCHES[name].load().main(["--help"])
    assert "--json" in capsys.readouterr().out
