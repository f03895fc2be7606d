"""Lives that end by SIGKILL before the n-th time that they touch a file of some folder, in a process of their own."""

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

TOUCHES = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree")


def dies(before: int, folder: Path, act: Callable[[], object]) -> bool:
    """Whether a process that acts was killed before its `before`-th touch; False: it came to its end."""
    child = os.fork()
    if child == 0:
        _live(before, folder, act)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def deaths(folder: Path, act: Callable[[], object]) -> Iterator[int]:
    """The number of each touch before which there is something to die, one after the other."""
    before = 1
    while dies(before, folder, act):
        yield before
        before += 1


def _live(before: int, folder: Path, act: Callable[[], object]) -> None:
    touches = iter(range(1, before + 1))

    def count(event: str, arguments: tuple[object, ...]) -> None:
        if event in TOUCHES and str(arguments[0]).startswith(str(folder)) and next(touches, before) == before:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    try:
        act()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
