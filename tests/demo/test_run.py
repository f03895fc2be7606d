"""The demo as anybody starts it: it tells the whole story, stays on request, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from demo.__main__ import INTERRUPTED
from tests.checkout import ROOT

DEMO_TIMEOUT_S = 400.0


class DemoProcess:
    """A demo that runs: what it has said so far, and the processes that it has started."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path) -> None:
        self.process, self.output = process, output

    @property
    def output_text(self) -> str:
        return self.output.read_text()

    def wait_for_text(self, text: str, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while text not in self.output_text:
            assert self.process.poll() is None, f"The demo should go on. Found:\n{self.output_text}"
            assert time.monotonic() < deadline, f"`{text}` should be said. Found:\n{self.output_text}"
            time.sleep(0.05)

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


@contextmanager
def start_demo(tmp_path: Path, *arguments: str) -> Iterator[DemoProcess]:
    """`python -m demo run`, with a folder for temporary files of its own."""
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
def test_the_whole_way_is_told_once_and_interrupting_what_stays_leaves_nothing_behind(tmp_path: Path) -> None:
    with start_demo(tmp_path, "--keep") as story:
        # When the story has been told and the shop goes on
        story.wait_for_text("Ctrl-C ends it", DEMO_TIMEOUT_S)
        said, children = story.output_text, story.children()
        story.process.send_signal(signal.SIGINT)

        # Then it ends as it was asked to, and takes along what it started
        assert story.process.wait(60) == INTERRUPTED
        assert len(children) >= 4
        assert not any(child.is_running() for child in children)
        assert not list((tmp_path / "tmp").glob("shopstream-*"))

    # And it has shown what a user would look at
    for words in ("GET shop:rec:u", "decline", "Dead letters by reason", "Throughput: ", "/metrics"):
        assert words in said
    versions = [line.split()[1] for line in said.splitlines() if line.startswith("│ 20")]
    assert len(set(versions)) == 2


def test_an_interrupt_in_the_middle_stops_everything(tmp_path: Path) -> None:
    with start_demo(tmp_path) as story:
        # Given
        story.wait_for_text("simulated shop", 60)
        children = story.children()

        # When
        story.process.send_signal(signal.SIGTERM)

        # Then
        assert story.process.wait(60) == INTERRUPTED
        assert "everything that was started has been stopped" in story.output_text
        assert not any(child.is_running() for child in children)
        assert not list((tmp_path / "tmp").glob("shopstream-*"))
