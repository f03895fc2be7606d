"""The crew: what ends by itself or is late ends the demo loudly, and nothing outlives it."""

import time
from pathlib import Path

import psutil
import pytest

from demo.processes import DemoError, ProcessManager

# Any module that runs long enough to be found running, and any that ends at once.
LASTING_COMMAND = ("http.server", "--bind", "127.0.0.1", "0")
ENDING_COMMAND = ("platform",)


def find_processes(folder: Path) -> list[psutil.Process]:
    """The child processes of this one that write to a log in `folder`."""
    return [child for child in psutil.Process().children() if any(str(folder) in f.path for f in child.open_files())]


def test_what_a_finished_command_printed_last_is_returned(tmp_path: Path) -> None:
    with ProcessManager(folder=tmp_path) as crew:
        finished = crew.run("platform", *ENDING_COMMAND, timeout_s=30)

    assert finished.status == 0
    assert "Linux" in finished.last_line


def test_another_status_than_0_can_be_expected(tmp_path: Path) -> None:
    with ProcessManager(folder=tmp_path) as crew:
        assert crew.run("absent", "absent", timeout_s=30, statuses=(0, 1)).status == 1


def test_a_command_that_fails_ends_the_demo_with_the_end_of_its_log(tmp_path: Path) -> None:
    with (
        ProcessManager(folder=tmp_path) as crew,
        pytest.raises(DemoError, match=r"(?s)should end well.*No module named absent"),
    ):
        crew.run("absent", "absent", timeout_s=30)


def test_a_process_that_ends_by_itself_is_noticed_with_the_end_of_its_log(tmp_path: Path) -> None:
    # Given
    with ProcessManager(folder=tmp_path) as crew:
        crew.start("worker", *ENDING_COMMAND)

        # When, Then
        with pytest.raises(DemoError, match=r"(?s)`worker` should go on.*Linux"):
            crew.wait_until(lambda: False, "Never", timeout_s=30)


def test_what_is_late_ends_the_demo_with_the_logs_of_all(tmp_path: Path) -> None:
    # Given
    with ProcessManager(folder=tmp_path) as crew:
        crew.start("worker", *LASTING_COMMAND)

        # When, Then
        with pytest.raises(DemoError, match=r"(?s)Moons should be two within 0 s.*worker: "):
            crew.wait_until(lambda: False, "Moons should be two", timeout_s=0)


def test_a_command_that_is_late_is_killed(tmp_path: Path) -> None:
    # Given
    with ProcessManager(folder=tmp_path) as crew:
        # When
        with pytest.raises(DemoError):
            crew.run("lasting", *LASTING_COMMAND, timeout_s=0)

        # Then
        assert not find_processes(tmp_path)


def test_leaving_the_crew_stops_all_of_it(tmp_path: Path) -> None:
    # Given
    with ProcessManager(folder=tmp_path) as crew:
        crew.start("one", *LASTING_COMMAND)
        crew.start("two", *LASTING_COMMAND)
        deadline = time.monotonic() + 30
        while len(find_processes(tmp_path)) < 2 and time.monotonic() < deadline:
            crew.raise_if_ended()
        running = find_processes(tmp_path)

    # Then
    assert len(running) == 2
    assert not any(process.is_running() for process in running)
