"""The demo as a user starts it: it runs the whole cycle, keeps running on request, and cleans up."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from demo.__main__ import INTERRUPTED
from tests.checkout import ROOT
from tests.polling import wait_until
from tests.processes import is_process_gone

DEMO_TIMEOUT_S = 400.0


class DemoProcess:
    """A running demo: its output so far, and its child processes."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path) -> None:
        self.process, self.output = process, output

    @property
    def output_text(self) -> str:
        return self.output.read_text()

    def wait_for_text(self, text: str, timeout_s: float) -> None:
        def has_text() -> bool:
            assert self.process.poll() is None, f"The demo should keep running. Found:\n{self.output_text}"
            return text in self.output_text

        wait_until(has_text, lambda: f"no `{text}` in:\n{self.output_text}", timeout_s)

    def children(self) -> dict[psutil.Process, str]:
        """Its present child processes, and what they start, each with its command."""
        commands = dict[psutil.Process, str]()
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                commands[child] = " ".join(child.cmdline())
        return commands


def find_running(children: Mapping[psutil.Process, str]) -> list[str]:
    """The commands of those that have not ended."""
    return [command for child, command in children.items() if not is_process_gone(child.pid)]


@contextmanager
def start_demo(tmp_path: Path, *arguments: str) -> Iterator[DemoProcess]:
    """`python -m demo run` with its own folder for temporary files."""
    output = tmp_path / "output"
    environment = {**os.environ, "COLUMNS": "240", "TMPDIR": str(tmp_path / "tmp")}
    (tmp_path / "tmp").mkdir()
    with output.open("wb") as file:
        command = [sys.executable, "-m", "demo", "run", *arguments]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT)
    try:
        yield DemoProcess(process, output)
    finally:
        process.kill()
        process.wait()


@pytest.mark.timeout(DEMO_TIMEOUT_S + 60)
def test_the_demo_runs_the_whole_cycle_and_an_interrupt_cleans_up(tmp_path: Path) -> None:
    with start_demo(tmp_path, "--keep") as demo:
        # given a demo that has finished its cycle and keeps running
        demo.wait_for_text("Ctrl-C ends it", DEMO_TIMEOUT_S)
        output, children = demo.output_text, demo.children()

        # when
        demo.process.send_signal(signal.SIGINT)

        # then it ends, and so does everything it started
        assert demo.process.wait(60) == INTERRUPTED
        assert len(children) >= 4
        assert find_running(children) == []
        assert not list((tmp_path / "tmp").glob("shopstream-*"))

    # and its output had every section
    for words in (
        "GET shop:rec:u",
        "A newcomer clicks 3 items",
        "Popular items know",
        "decline",
        "Dead letters by reason",
        "Throughput: ",
        "/metrics",
    ):
        assert words in output
    versions = [line.split()[1] for line in output.splitlines() if line.startswith("│ 20")]
    assert len(set(versions)) == 2


def test_an_interrupt_during_the_cycle_stops_everything(tmp_path: Path) -> None:
    with start_demo(tmp_path) as demo:
        # given
        demo.wait_for_text("a shop's history", 60)
        children = demo.children()

        # when
        demo.process.send_signal(signal.SIGTERM)

        # then
        assert demo.process.wait(60) == INTERRUPTED
        assert "everything that was started has been stopped" in demo.output_text
        assert find_running(children) == []
        assert not list((tmp_path / "tmp").glob("shopstream-*"))
