"""The process manager reports processes that end or time out, and stops all of them."""

from pathlib import Path

import psutil
import pytest

from demo.processes import DemoError, ProcessManager
from tests.processes import interrupt_starts

# A module that runs until it is stopped, and one that ends at once.
LASTING_COMMAND = ("http.server", "--bind", "127.0.0.1", "0")
ENDING_COMMAND = ("platform",)


def find_processes(folder: Path) -> list[psutil.Process]:
    """Child processes of this process that write to a log in `folder`."""
    children = psutil.Process().children()
    return [child for child in children if any(str(folder) in file.path for file in child.open_files())]


def test_a_command_returns_its_status_and_last_line(tmp_path: Path) -> None:
    with ProcessManager(folder=tmp_path) as manager:
        result = manager.run("platform", *ENDING_COMMAND, timeout_s=30)

    assert result.status == 0
    assert "Linux" in result.last_line


def test_a_command_may_end_with_an_expected_status(tmp_path: Path) -> None:
    with ProcessManager(folder=tmp_path) as manager:
        assert manager.run("absent", "absent", timeout_s=30, statuses=(0, 1)).status == 1


def test_a_failed_command_raises_with_the_end_of_its_log(tmp_path: Path) -> None:
    with (
        ProcessManager(folder=tmp_path) as manager,
        pytest.raises(DemoError, match=r"(?s)should succeed.*No module named absent"),
    ):
        manager.run("absent", "absent", timeout_s=30)


def test_a_process_that_ends_by_itself_raises_with_the_end_of_its_log(tmp_path: Path) -> None:
    # given
    with ProcessManager(folder=tmp_path) as manager:
        manager.start("worker", *ENDING_COMMAND)

        # when, then
        with pytest.raises(DemoError, match=r"(?s)`worker` should keep running.*Linux"):
            manager.wait_until(lambda: False, "Never", timeout_s=30)


def test_a_timeout_raises_with_the_logs_of_all_processes(tmp_path: Path) -> None:
    # given
    with ProcessManager(folder=tmp_path) as manager:
        manager.start("worker", *LASTING_COMMAND)

        # when, then
        with pytest.raises(DemoError, match=r"(?s)The lists should be ready within 0 s.*worker: "):
            manager.wait_until(lambda: False, "The lists should be ready", timeout_s=0)


def test_a_command_that_times_out_is_killed(tmp_path: Path) -> None:
    # given
    with ProcessManager(folder=tmp_path) as manager:
        # when
        with pytest.raises(DemoError):
            manager.run("lasting", *LASTING_COMMAND, timeout_s=0)

        # then
        assert not find_processes(tmp_path)


def test_a_command_whose_start_is_interrupted_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    interrupt_starts(monkeypatch)
    with ProcessManager(folder=tmp_path) as manager:
        # when
        with pytest.raises(KeyboardInterrupt):
            manager.run("lasting", *LASTING_COMMAND, timeout_s=30)

        # then
        assert not find_processes(tmp_path)


def test_leaving_the_context_stops_every_process(tmp_path: Path) -> None:
    # given
    with ProcessManager(folder=tmp_path) as manager:
        manager.start("first", *LASTING_COMMAND)
        manager.start("second", *LASTING_COMMAND)
        manager.wait_until(lambda: len(find_processes(tmp_path)) == 2, "Two processes should run", timeout_s=30)
        processes = find_processes(tmp_path)

    # then
    assert len(processes) == 2
    assert not any(process.is_running() for process in processes)
