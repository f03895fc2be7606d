"""The published jars of Apache Kafka, downloaded by Maven once for each user of this machine."""

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from contract.errors import Unavailable

VERSION = "4.1.0"
JAVA_MIN = 17  # the class files of the broker are built for it
CLUSTER_ID = "AAAAAAAAAAAAAAAAAAAAAA"

_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>shopstream</groupId><artifactId>kafka-jars</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>{VERSION}</version></dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.24.3</version>
    </dependency>
  </dependencies>
</project>
"""


def cache_folder() -> Path:
    """The cache folder of this version: in $SHOPSTREAM_CACHE, else in the user's cache folder."""
    root = os.environ.get("SHOPSTREAM_CACHE")
    return (Path(root) if root else Path.home() / ".cache" / "shopstream") / f"kafka-{VERSION}"


def unavailable_reason() -> str | None:
    """Why Apache Kafka cannot run on this machine, as a sentence; None if it can."""
    if shutil.which("java") is None:
        return f"Apache Kafka needs Java {JAVA_MIN} or newer, and there is no `java` on the path."
    release = read_java_release()
    if release < JAVA_MIN:
        return f"Apache Kafka needs Java {JAVA_MIN} or newer, and `java` is {release}."
    if shutil.which("mvn") is None and not (cache_folder() / "jars").is_dir():
        return "Apache Kafka's jars are fetched by Maven, and there is no `mvn` on the path."
    return None


def read_java_release() -> int:
    """The major version of `java` on the path; 0 if it is unknown."""
    output = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', output)
    return int(version[1]) if version else 0


def fetch_jars() -> Path:
    """The folder of the jars, downloaded if missing; a lock serialises concurrent processes.

    Raises `Unavailable` with the output of Maven if the download fails.
    """
    folder = cache_folder() / "jars"
    with _lock_cache():
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(dir=cache_folder()) as staging:
                _fetch(Path(staging))
                Path(staging, "jars").rename(folder)  # atomic, so that a partial download is never used
    return folder


def format_log_folder() -> Path:
    """The folder with the two files of a formatted log directory, the same for every broker.

    Formatting starts a JVM, so the result is cached and copied.
    """
    classpath, folder = f"{fetch_jars()}/*", cache_folder() / "formatted"
    with _lock_cache():
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(dir=cache_folder()) as staging:
                _format(classpath, Path(staging))
                Path(staging, "logs").rename(folder)
    return folder


def _fetch(staging: Path) -> None:
    (staging / "pom.xml").write_text(_POM)
    goal = ["dependency:copy-dependencies", "-DoutputDirectory=jars", "-DincludeScope=runtime"]
    _run(["mvn", "-q", "-B", "-f", str(staging / "pom.xml"), *goal], staging)


def _format(classpath: str, staging: Path) -> None:
    (staging / "server.properties").write_text(
        "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:1\n"
        "listeners=PLAINTEXT://127.0.0.1:2,CONTROLLER://127.0.0.1:1\ncontroller.listener.names=CONTROLLER\n"
        f"listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\nlog.dirs={staging}/logs\n"
    )
    _run(
        ["java", "-cp", classpath, "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", "server.properties"],
        staging,
    )


def _run(command: list[str], folder: Path) -> None:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        output = (result.stdout + result.stderr)[-2_000:]
        raise Unavailable(f"`{command[0]}` should prepare Apache Kafka {VERSION}. Found:\n{output}")


@contextmanager
def _lock_cache() -> Iterator[None]:
    cache_folder().mkdir(parents=True, exist_ok=True)
    with (cache_folder() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
