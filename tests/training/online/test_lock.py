import os
import signal
from pathlib import Path

import pytest

from contract.errors import BadBundle, BadConfig
from training.online.lock import learner_lock


def test_a_second_learner_is_refused_and_the_holding_process_is_named(tmp_path: Path) -> None:
    with (
        learner_lock(tmp_path),
        pytest.raises(BadConfig, match=rf"one learner\. Found another one, process {os.getpid()}"),
        learner_lock(tmp_path),
    ):
        raise AssertionError


def test_learners_of_different_folders_run_side_by_side(tmp_path: Path) -> None:
    with learner_lock(tmp_path / "one"), learner_lock(tmp_path / "other"):
        assert (tmp_path / "other" / "learner.lock").is_file()


def test_a_killed_learner_releases_the_lock(tmp_path: Path) -> None:
    # given a learner in another process that holds the lock
    ready_reader, ready_writer = os.pipe()
    child = os.fork()
    if child == 0:
        with learner_lock(tmp_path):
            os.write(ready_writer, b"!")
            signal.pause()
    assert os.read(ready_reader, 1) == b"!"
    with pytest.raises(BadConfig, match=f"process {child}"), learner_lock(tmp_path):
        raise AssertionError

    # when it is killed
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)

    # then the next learner starts
    with learner_lock(tmp_path):
        assert (tmp_path / "learner.lock").read_text() == f"{os.getpid()}\n"


def test_a_learner_that_fails_releases_the_lock(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), learner_lock(tmp_path):
        raise ZeroDivisionError
    with learner_lock(tmp_path):
        pass


def test_a_folder_that_cannot_be_created_raises_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadBundle, match="should be a writable folder"), learner_lock(tmp_path / "file"):
        raise AssertionError
