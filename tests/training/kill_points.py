"""Lives that end by SIGKILL before the n-th time that they touch a file of some folder, in a process of their own."""

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

FILE_OPERATIONS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree")


def is_killed_before(before: int, folder: Path, act: Callable[[], object]) -> bool:
    """Whether a process that acts was killed before its `before`-th touch; False: it came to its end."""
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
    """The number of each touch before which there is something to die, one after the other."""
    before = 1
    while is_killed_before(before, folder, act):
        yield before
        before += 1


def _run_and_kill(before: int, folder: Path, act: Callable[[], object]) -> None:
    touches = iter(range(1, before + 1))

    def count(event: str, arguments: tuple[object, ...]) -> None:
        if event in FILE_OPERATIONS and str(arguments[0]).startswith(str(folder)) and next(touches, before) == before:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    try:
        act()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
