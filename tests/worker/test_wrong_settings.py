"""Settings that no server could serve end each program with a sentence and status 2, never with a traceback."""

import subprocess
import sys
from pathlib import Path

import pytest

from devservers.redis_server import RedisServer
from testkit.checkout import CHECKOUT_VARIABLES

PROGRAMS = {
    "orders": ["worker", "score", "--lane", "orders"],
    "browsing": ["worker", "score", "--lane", "browsing"],
    "joiner": ["worker", "feedback"],
    "doctor": ["worker", "doctor"],
    "topics": ["worker", "topics"],
    "learner": ["training", "follow", "--once"],
    "monitor": ["training", "watch"],
}
MISTAKES = {
    "a misspelt option": ({"KAFKA__CLIENT": '{"sasl.usernam": "a"}'}, "`kafka.client` should have options"),
    "an option of another type": (
        {"KAFKA__CLIENT": '{"security.protocol": "tls"}'},
        "`kafka.client` should have options",
    ),
    "an address without a scheme": ({"REDIS__URL": "localhost:6379"}, "`redis.url` should begin with redis://"),
    "a registry without a scheme": ({"REGISTRY__URL": "registry:8081"}, "`registry.url` should begin with http://"),
    "a name that no topic can have": (
        {"TOPICS__ORDERS": "shop/orders"},
        "`topics.orders` should be the name of a topic",
    ),
    "a variable with one underscore": ({"REDIS_URL": "redis://elsewhere"}, "the nearest is `SHOPSTREAM_REDIS__URL`"),
}


def run_program(name: str, folder: Path, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    environment = {
        **CHECKOUT_VARIABLES,
        "SHOPSTREAM_BUNDLES": str(folder),
        "SHOPSTREAM_FEEDBACK__STORE": "",
        "SHOPSTREAM_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:9",
        "SHOPSTREAM_WORKER__HTTP_PORT": "0",
        "SHOPSTREAM_WATCH__HTTP_PORT": "0",
        **{f"SHOPSTREAM_{variable}": value for variable, value in variables.items()},
    }
    command = [sys.executable, "-m", *PROGRAMS[name]]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_mistake_of_the_settings_ends_a_program_with_a_sentence(program: str, mistake: str, tmp_path: Path) -> None:
    variables, words = MISTAKES[mistake]
    done = run_program(program, tmp_path, variables)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("program", ["orders", "browsing"])
def test_a_database_that_redis_does_not_have_ends_a_worker_with_a_sentence(
    program: str, redis_server: RedisServer, tmp_path: Path
) -> None:
    done = run_program(program, tmp_path, {"REDIS__URL": f"{redis_server.url.rpartition('/')[0]}/99"})
    assert done.returncode == 2, done.stderr
    assert "`redis.url` should name a database" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_store_that_cannot_be_written_ends_a_joiner_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run_program("joiner", tmp_path, {"FEEDBACK__STORE": str(tmp_path / "file" / "rows")})
    assert done.returncode == 2, done.stderr
    assert "`feedback.store` should be a folder that this process may write to" in done.stderr
    assert "Traceback" not in done.stderr
