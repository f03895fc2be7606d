"""The crew: what ends by itself or is late ends the demo loudly, and nothing outlives it."""

import time
from pathlib import Path

import psutil
import pytest

from demo.crew import Crew, Failed

# Any module that runs long enough to be found running, and any that ends at once.
LASTING = ("http.server", "--bind", "127.0.0.1", "0")
ENDING = ("platform",)


def processes_of(folder: Path) -> list[psutil.Process]:
    """The child processes of this one that write to a log in `folder`."""
    return [child for child in psutil.Process().children() if any(str(folder) in f.path for f in child.open_files())]


def test_what_a_finished_command_printed_last_is_returned(tmp_path: Path) -> None:
    with Crew(folder=tmp_path) as crew:
        finished = crew.finish("platform", *ENDING, within_s=30)

    assert finished.status == 0
    assert "Linux" in finished.said


def test_another_status_than_0_can_be_expected(tmp_path: Path) -> None:
    with Crew(folder=tmp_path) as crew:
        assert crew.finish("absent", "absent", within_s=30, statuses=(0, 1)).status == 1


def test_a_command_that_fails_ends_the_demo_with_the_end_of_its_log(tmp_path: Path) -> None:
    with Crew(folder=tmp_path) as crew, pytest.raises(Failed, match=r"(?s)should end well.*No module named absent"):
        crew.finish("absent", "absent", within_s=30)


def test_a_process_that_ends_by_itself_is_noticed_with_the_end_of_its_log(tmp_path: Path) -> None:
    # Given
    with Crew(folder=tmp_path) as crew:
        crew.start("worker", *ENDING)

        # When, Then
        with pytest.raises(Failed, match=r"(?s)`worker` should go on.*Linux"):
            crew.wait_until(lambda: False, "Never", within_s=30)


def test_what_is_late_ends_the_demo_with_the_logs_of_all(tmp_path: Path) -> None:
    # Given
    with Crew(folder=tmp_path) as crew:
        crew.start("worker", *LASTING)

        # When, Then
        with pytest.raises(Failed, match=r"(?s)Moons should be two within 0 s.*worker: "):
            crew.wait_until(lambda: False, "Moons should be two", within_s=0)


def test_a_command_that_is_late_is_killed(tmp_path: Path) -> None:
    # Given
    with Crew(folder=tmp_path) as crew:
        # When
        with pytest.raises(Failed):
            crew.finish("lasting", *LASTING, within_s=0)

        # Then
        assert not processes_of(tmp_path)


def test_leaving_the_crew_stops_all_of_it(tmp_path: Path) -> None:
    # Given
    with Crew(folder=tmp_path) as crew:
        crew.start("one", *LASTING)
        crew.start("two", *LASTING)
        deadline = time.monotonic() + 30
        while len(processes_of(tmp_path)) < 2 and time.monotonic() < deadline:
            crew.check()
        running = processes_of(tmp_path)

    # Then
    assert len(running) == 2
    assert not any(process.is_running() for process in running)
