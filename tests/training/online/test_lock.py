import os
import signal
from pathlib import Path

import pytest

from contract.errors import BadBundle, BadConfig
from training.online.lock import learner_lock


def test_a_second_learner_of_one_folder_is_refused_with_the_process_that_holds_it(tmp_path: Path) -> None:
    with (
        learner_lock(tmp_path),
        pytest.raises(BadConfig, match=rf"one learner\. Found another one at work, process {os.getpid()}"),
        learner_lock(tmp_path),
    ):
        raise AssertionError


def test_learners_of_different_folders_do_not_mind_each_other(tmp_path: Path) -> None:
    with learner_lock(tmp_path / "one"), learner_lock(tmp_path / "other"):
        assert (tmp_path / "other" / "learner.lock").is_file()


def test_a_learner_that_is_killed_holds_nothing_any_more(tmp_path: Path) -> None:
    # Given a learner in a process of its own that holds the lock
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        with learner_lock(tmp_path):
            os.write(tell, b"!")
            signal.pause()
    assert os.read(told, 1) == b"!"
    with pytest.raises(BadConfig, match=f"process {child}"), learner_lock(tmp_path):
        raise AssertionError

    # When it dies without a word
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)

    # Then the next one begins
    with learner_lock(tmp_path):
        assert (tmp_path / "learner.lock").read_text() == f"{os.getpid()}\n"


def test_a_learner_that_ends_by_an_error_leaves_the_lock(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), learner_lock(tmp_path):
        raise ZeroDivisionError
    with learner_lock(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadBundle, match="should be a folder that can be written"), learner_lock(tmp_path / "file"):
        raise AssertionError
