"""The digest of a figure's inputs changes with them, and refuses inputs that do not exist."""

from pathlib import Path

import grimp
import pytest

from bench.guarantees import state
from bench.quality.census import command as census
from bench.quality.fraud import command as fraud
from bench.quality.fraud.features import BLOCK_CODE_PATHS
from bench.quality.gate import scenario
from bench.quality.loss_balancing import command as loss_balancing
from bench.quality.online_learning import stream
from bench.quality.simulated_shop import SHOP_CODE_PATHS
from bench.quality.small_data import command as small_data
from bench.results.digest import digest_inputs, list_sources
from testkit.checkout import ROOT


def test_a_digest_changes_with_the_data_and_the_libraries(tmp_path: Path) -> None:
    # given
    data = tmp_path / "data.csv"
    data.write_text("1")
    first = digest_inputs(["bench/results"], libraries=["numpy"], files=[data])

    # when
    other_library = digest_inputs(["bench/results"], libraries=["msgspec"], files=[data])
    data.write_text("2")
    other_data = digest_inputs(["bench/results"], libraries=["numpy"], files=[data])

    # then
    assert len({first, other_library, other_data}) == 3


def test_a_folder_stands_for_its_python_files_in_order(tmp_path: Path) -> None:
    for name in ("b.py", "a.py", "notes.md"):
        (tmp_path / name).touch()

    assert [path.name for path in list_sources(tmp_path)] == ["a.py", "b.py"]


@pytest.mark.parametrize("path", ["bench/no_such_module.py", "docs"])
def test_a_missing_path_or_a_folder_without_code_is_an_error(path: str) -> None:
    with pytest.raises(FileNotFoundError, match=path):
        digest_inputs([path])


# The modules that are not digested only run a bench: they print, or keep results.
RUN_MODULES = ("bench.results", "testkit.checkout")
CODE_PATHS_BY_MODULE: dict[str, tuple[str, ...]] = {
    "bench.guarantees.state": state.CODE_PATHS,
    "bench.quality.census.command": census.CODE_PATHS,
    "bench.quality.fraud.command": fraud.CODE_PATHS,
    "bench.quality.fraud.features": BLOCK_CODE_PATHS,
    "bench.quality.gate.scenario": scenario.CODE_PATHS,
    "bench.quality.loss_balancing.command": loss_balancing.CODE_PATHS,
    "bench.quality.online_learning.stream": stream.CODE_PATHS,
    "bench.quality.simulated_shop": SHOP_CODE_PATHS,
    "bench.quality.small_data.command": small_data.CODE_PATHS,
}


@pytest.fixture(scope="module")
def import_graph() -> grimp.ImportGraph:
    packages = [path.parent.name for path in ROOT.glob("*/__init__.py") if path.parent.name != "tests"]
    return grimp.build_graph(*packages, cache_dir=None)


@pytest.mark.parametrize("module", CODE_PATHS_BY_MODULE)
def test_every_module_that_a_cached_figure_depends_on_is_digested(module: str, import_graph: grimp.ImportGraph) -> None:
    # given
    sources = (source for path in CODE_PATHS_BY_MODULE[module] for source in list_sources(ROOT / path))
    digested = {".".join(source.relative_to(ROOT).with_suffix("").parts) for source in sources}
    # when
    upstream = {module, *import_graph.find_upstream_modules(module)}
    # then
    packages = {name for name in import_graph.modules if import_graph.find_children(name)}
    undigested = upstream - digested - packages
    assert sorted(name for name in undigested if not name.startswith(RUN_MODULES)) == []
