"""Processes that tests observe or interrupt."""

import signal
import subprocess
from typing import Any

import psutil
import pytest


def is_process_gone(pid: int) -> bool:
    """Whether a process has ended; one that has is a zombie until its parent or init reaps it."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def interrupt_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Ctrl-C come whenever a child process is being created from now on."""
    create = subprocess.Popen.__init__

    def create_interrupted(*arguments: Any, **options: Any) -> None:
        create(*arguments, **options)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(subprocess.Popen, "__init__", create_interrupted)
