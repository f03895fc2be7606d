"""Runs an action in a child process that SIGKILL ends before its n-th file operation in a folder."""

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

FILE_OPERATIONS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree")


def is_killed_before(before: int, folder: Path, act: Callable[[], object]) -> bool:
    """Whether the process was killed before its `before`-th file operation; False if it finished."""
    child = os.fork()
    if child == 0:
        _run_and_kill(before, folder, act)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def each_kill_point(folder: Path, act: Callable[[], object]) -> Iterator[int]:
    """The number of each file operation of the action, after a run that was killed before it."""
    before = 1
    while is_killed_before(before, folder, act):
        yield before
        before += 1


def _run_and_kill(before: int, folder: Path, act: Callable[[], object]) -> None:
    operations = iter(range(1, before + 1))

    def count(event: str, arguments: tuple[object, ...]) -> None:
        if (
            event in FILE_OPERATIONS
            and str(arguments[0]).startswith(str(folder))
            and next(operations, before) == before
        ):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    try:
        act()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
