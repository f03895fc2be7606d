"""docs/tutorial.md: every block runs in the order of the page, and prints what the page says."""

import faulthandler
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import pytest
import redis

from contract.settings.servers import TopicSettings
from devservers.apache_kafka import ApacheKafka
from devservers.process import ChildProcess
from tests.checkout import ROOT
from tests.docs.pages import FENCE, MarkdownPage
from tests.docs.schema_registry import SchemaRegistry, open_schema_registry
from tests.kafka import read_topics
from tests.polling import wait_until

PAGE: Final = MarkdownPage(ROOT / "docs" / "tutorial.md")
STEP_S: Final = 300
ADDRESSES: Final = ("localhost:9092", "redis://localhost:6379/0", "http://localhost:8081")
GAP: Final = "…"  # stands for anything in what a step prints


@dataclass(frozen=True, slots=True)
class Step:
    """A block of the page: its language, its name (of a step, or of a file), and the lines that it prints."""

    language: str
    name: str
    body: str
    printed: tuple[str, ...] = ()


def list_steps() -> list[Step]:
    """The blocks in the order of the page; what a `text` block says is printed belongs to the step of its name."""
    blocks = [(*info.split(" ", 1), body) for info, body in FENCE.findall(PAGE.text)]
    printed = {name: tuple(body.splitlines()) for language, name, body in blocks if language == "text"}
    return [Step(language, name, body, printed.get(name, ())) for language, name, body in blocks if language != "text"]


class Reader:
    """A user who follows the page in a folder, with own servers."""

    def __init__(self, *, folder: Path, kafka: str, redis_url: str, registry: str) -> None:
        self.folder, self._shop = folder, folder / "lumen"
        self._addresses = dict(zip(ADDRESSES, (kafka, redis_url, registry), strict=True))
        self._environment = {name: value for name, value in os.environ.items() if "SHOPSTREAM_" not in name}
        self._environment["PATH"] = f"{make_commands(folder / 'bin')}:{os.environ['PATH']}"
        self.workers: list[ChildProcess] = []

    def follow(self, step: Step) -> str:
        """Do what a block says; returns what it prints."""
        match step:
            case Step(language="sh", name="install"):
                pass  # tests/shopstream installs the package, and the extras need a package index
            case Step(language="sh", name="addresses"):
                exported = re.findall(r"^export (\w+)=(.+)$", step.body, re.MULTILINE)
                self._environment |= {name: self._addresses[value] for name, value in exported}
            case Step(language="sh", name="workers"):
                self._start_workers(step.body.splitlines())
            case Step(language="sh"):
                return self._run(step.body)
            case Step(name=name):
                with (self._shop / name).open("a") as file:
                    file.write("\n" * name.endswith(".toml") + step.body)
        return ""

    def stop(self) -> None:
        for worker in self.workers:
            worker.stop()

    def _run(self, body: str) -> str:
        folder = self._shop if self._shop.exists() else self.folder
        done = subprocess.run(
            ["bash", "-ec", body],
            cwd=folder,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=STEP_S,
        )
        output = done.stdout + done.stderr
        assert done.returncode == 0, f"`{body}` should succeed. Found status {done.returncode}:\n{output}"
        return output

    def _start_workers(self, lines: list[str]) -> None:
        for number, line in enumerate(lines):
            command = ["bash", "-c", f"cd {self._shop} && exec {line}"]
            log = self.folder / f"worker-{number}.log"
            worker = ChildProcess(command=command, output=log, environment=self._environment)
            worker.start()
            self.workers.append(worker)


def make_commands(folder: Path) -> Path:
    """A folder with the commands that the installation makes, for this checkout."""
    folder.mkdir()
    for name, arguments in (("python", ""), ("shopstream", "-m shopstream")):
        script = f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} {arguments} "$@"\n'
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture
def schema_registry() -> Iterator[SchemaRegistry]:
    with open_schema_registry() as registry:
        yield registry


@contextmanager
def start_reader(folder: Path, kafka: ApacheKafka, redis_url: str, registry: SchemaRegistry) -> Iterator[Reader]:
    reader = Reader(folder=folder, kafka=kafka.bootstrap, redis_url=redis_url, registry=registry.url)
    try:
        yield reader
    finally:
        reader.stop()


def assert_printed(step: Step, output: str) -> None:
    for line in step.printed:
        pattern = ".*".join(re.escape(part) for part in line.split(GAP))
        assert re.search(pattern, output), f"`{step.name}` should print {line!r}. Found:\n{output}"


def wait_for_answers(redis_url: str) -> None:
    """Until the orders of the page are decided and lists are there: a reader takes longer than the workers."""
    orders = ["shop:decision:10000", *(f"shop:decision:ring-{n}" for n in range(8))]
    with redis.Redis.from_url(redis_url) as client:
        wait_until(lambda: client.exists(*orders) == len(orders), timeout_s=STEP_S)
        wait_until(lambda: any(client.scan_iter("shop:rec:b-*")), timeout_s=STEP_S)


def list_labelled_orders(kafka: ApacheKafka) -> set[str]:
    """The orders of which the feedback topic has an example with a label of fraud."""
    records = read_topics(kafka.bootstrap, TopicSettings().feedback)
    examples = [msgspec.msgpack.decode(record.value) for record in records if record.value]
    return {example["event_id"] for example in examples if "fraud" in example["labels"]}


def wait_for_examples(kafka: ApacheKafka, shop: Path) -> None:
    """Until each outcome that the shop has sent is the label of an example."""
    disputes = json.loads((shop / "disputes.json").read_text())
    orders = {str(dispute["order_number"]) for dispute in disputes}
    wait_until(lambda: list_labelled_orders(kafka) == orders, timeout_s=STEP_S)


@pytest.mark.apache_kafka
@pytest.mark.timeout(900)
def test_every_block_of_the_tutorial_does_what_the_page_says(
    apache_kafka: ApacheKafka, redis_url: str, schema_registry: SchemaRegistry, tmp_path: Path
) -> None:
    faulthandler.cancel_dump_traceback_later()  # it would end this test after four minutes; the mark has a limit too
    shop = tmp_path / "lumen"
    with start_reader(tmp_path, apache_kafka, redis_url, schema_registry) as reader:
        for step in list_steps():
            if step.name == "read":
                wait_for_answers(redis_url)
            if step.name == "learn":
                wait_for_examples(apache_kafka, shop)
            assert_printed(step, reader.follow(step))
        assert all(worker.is_running for worker in reader.workers)
    # then one topic was read as Avro, and the learner published a bundle next to the first one
    assert len(schema_registry.schemas) == 1
    assert len([path for path in (shop / "bundles").iterdir() if (path / "READY").exists()]) == 2


def test_the_installation_names_extras_that_the_package_has() -> None:
    (step,) = (step for step in list_steps() if step.name == "install")
    (extras,) = re.findall(r"pip install '\.\[([\w,]+)\]'", step.body)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(extras.split(",")) <= project["optional-dependencies"].keys()


def test_every_block_of_the_tutorial_has_a_name() -> None:
    assert all(len(info.split()) == 2 for info, _ in FENCE.findall(PAGE.text))
