"""The door to Redis: what a server says becomes what the caller does next. Each test has a server of its own."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
import redis

from contract.errors import BadConfig, Unavailable
from devservers.embedded import EmbeddedValkey
from devservers.redis_server import RedisServer
from worker.redis.client import RedisClient, to_pairs

WRITE: Final = "redis.call('SET', KEYS[1], ARGV[1]); return 1"
TIMEOUT_S: Final = 20.0


@pytest.fixture(params=[RedisServer, EmbeddedValkey])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with request.param() as started:
        yield started


@pytest.fixture
def client(server: RedisServer) -> Iterator[RedisClient]:
    made = RedisClient(url=server.url, timeout_s=TIMEOUT_S)
    yield made
    made.close()


@pytest.fixture
def operator(server: RedisServer) -> Iterator[Callable[..., Any]]:
    """Sends commands as whoever runs the server would."""
    connection = redis.Redis.from_url(server.url)
    yield connection.execute_command
    connection.close()


def wait_until(condition: Callable[[], Any], timeout_s: float = TIMEOUT_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "It should have come to pass by now."
        time.sleep(0.01)


def is_write_refused(client: RedisClient) -> bool:
    try:
        client.pipeline([("SET", "key", "value")])
    except Unavailable:
        return True
    return False


def list_write_calls(client: RedisClient) -> list[Callable[[], Any]]:
    return [
        lambda: client.pipeline([("SET", "key", "value")]),
        lambda: client.run_script(WRITE, [(["key"], ["value"])]),
        lambda: client.set_if_absent([("key", b"value")], 60),
    ]


def test_a_full_server_is_waited_for(client: RedisClient, operator: Callable[..., Any]) -> None:
    # given a server that may not throw anything away and has no room
    client.run_script(WRITE, [(["key"], ["value"])])
    operator("CONFIG", "SET", "maxmemory", "1")
    # then
    for write in list_write_calls(client):
        with pytest.raises(Unavailable, match=r"should take commands.*maxmemory"):
            write()
    # and when there is room again
    operator("CONFIG", "SET", "maxmemory", "0")
    for write in list_write_calls(client):
        write()


def test_a_server_that_became_a_replica_is_waited_for(
    server: RedisServer, client: RedisClient, operator: Callable[..., Any]
) -> None:
    client.run_script(WRITE, [(["key"], ["value"])])
    with type(server)() as primary:
        # given
        operator("REPLICAOF", "127.0.0.1", primary.port)
        # then
        for write in list_write_calls(client):
            with pytest.raises(Unavailable, match=r"should take commands.*replica"):
                write()
        # and when it may not even be read
        operator("CONFIG", "SET", "replica-serve-stale-data", "no")
        primary.kill()

        def link_is_down() -> bool:
            try:
                client.pipeline([("GET", "key")])
            except Unavailable as error:
                return "MASTER" in str(error)
            return False

        wait_until(link_is_down)
    # and when it is a primary again
    operator("REPLICAOF", "NO", "ONE")
    assert client.pipeline([("SET", "key", "value"), ("GET", "key")]) == [b"OK", b"value"]


def test_a_server_that_cannot_save_is_waited_for(client: RedisClient, operator: Callable[..., Any]) -> None:
    # given a server that takes no writes while it cannot save them, and whose folder is gone
    client.pipeline([("SET", "key", "value")])
    operator("CONFIG", "SET", "save", "3600 1")
    shutil.rmtree(dict(to_pairs(operator("CONFIG", "GET", "dir")))[b"dir"])
    operator("BGSAVE")
    wait_until(lambda: operator("INFO", "PERSISTENCE")["rdb_last_bgsave_status"] == "err")
    # then
    for write in list_write_calls(client):
        with pytest.raises(Unavailable, match="should take commands"):
            write()
    # and when it need not save any more
    operator("CONFIG", "SET", "save", "")
    assert not is_write_refused(client)


def test_a_server_that_is_busy_with_a_script_is_waited_for(
    server: RedisServer, client: RedisClient, operator: Callable[..., Any]
) -> None:
    # given
    operator("CONFIG", "SET", "lua-time-limit", "20")
    looping = RedisClient(url=server.url, timeout_s=TIMEOUT_S)
    ended: list[BaseException] = []

    def loop() -> None:
        try:
            looping.run_script("while true do end", [([], [])])
        except redis.ResponseError as error:
            ended.append(error)

    thread = threading.Thread(target=loop)
    thread.start()
    # then
    wait_until(lambda: is_write_refused(client))
    # and when the script is over
    operator("SCRIPT", "KILL")
    thread.join(TIMEOUT_S)
    assert len(ended) == 1
    assert not is_write_refused(client)
    looping.close()


def test_a_server_that_loads_its_data_is_waited_for() -> None:
    # given a server with data that it takes a while to load
    with RedisServer(settings={"key-load-delay": "200", "loading-process-events-interval-bytes": "1024"}) as server:
        client, said = RedisClient(url=server.url, timeout_s=TIMEOUT_S), set[str]()
        client.pipeline([("SET", f"key{n}", "x" * 100) for n in range(3_000)])
        server.stop()

        def answers() -> bool:
            try:
                return client.pipeline([("GET", "key7")]) == [b"x" * 100]
            except Unavailable as error:
                said.add("loading" if "loading" in str(error) else "away")
                return False

        # when
        assert not answers()
        server.process.start()
        wait_until(answers)
        # then
        assert said == {"away", "loading"}
        client.close()


def test_a_server_that_is_away_or_frozen_is_waited_for(server: RedisServer) -> None:
    # given a client with little patience for a single answer
    client = RedisClient(url=server.url, timeout_s=0.2)
    client.pipeline([("SET", "key", "value")])
    # when
    server.pause()
    with pytest.raises(Unavailable, match=r"should answer.*Timeout"):
        client.pipeline([("GET", "key")])
    server.resume()
    wait_until(lambda: not is_write_refused(client))
    server.kill()
    with pytest.raises(Unavailable, match=r"should answer.*(refused|closed)"):
        client.pipeline([("GET", "key")])
    # then it answers the same client again
    server.start()
    assert client.pipeline([("GET", "key")]) == [None]
    client.close()


def test_a_connection_that_is_cut_in_the_middle_is_a_server_that_does_not_answer(
    server: RedisServer, client: RedisClient, operator: Callable[..., Any]
) -> None:
    # given a command that waits at the server
    failures: list[Unavailable] = []

    def block() -> None:
        try:
            client.pipeline([("BLPOP", "nothing", 0)])
        except Unavailable as error:
            failures.append(error)

    thread = threading.Thread(target=block)
    thread.start()
    wait_until(lambda: operator("INFO", "CLIENTS")["blocked_clients"] == 1)
    # when
    operator("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    thread.join(TIMEOUT_S)
    # then
    assert "should answer" in str(failures[0])
    assert not is_write_refused(client)


@pytest.mark.parametrize("credentials", ["", ":wrong@", "nobody:secret@"])
def test_a_wrong_password_is_waited_for_and_never_logged(
    server: RedisServer, operator: Callable[..., Any], credentials: str
) -> None:
    # given
    operator("CONFIG", "SET", "requirepass", "secret")
    client = RedisClient(url=server.url.replace("//", f"//{credentials}"), timeout_s=TIMEOUT_S)
    # when
    with pytest.raises(Unavailable) as raised:
        client.pipeline([("GET", "key")])
    # then
    assert "wrong" not in str(raised.value)
    assert "nobody:secret" not in str(raised.value)
    # and when the password is what the client believes
    operator("CONFIG", "SET", "requirepass", "")
    client.close()


def test_a_password_in_the_query_of_an_address_is_no_part_of_its_name() -> None:
    assert RedisClient(url="redis://host:1/0?password=secret", timeout_s=1).name == "redis://host:1/0"
    assert RedisClient(url="redis://me:secret@host:1/0", timeout_s=1).name == "host:1/0"


def test_a_right_that_is_missing_is_waited_for(server: RedisServer, operator: Callable[..., Any]) -> None:
    # given
    operator("ACL", "SETUSER", "worker", "on", ">pass", "~*", "+@all", "-set")
    client = RedisClient(url=server.url.replace("//", "//worker:pass@"), timeout_s=TIMEOUT_S)
    # then
    with pytest.raises(Unavailable, match="should permit a worker's commands"):
        client.pipeline([("SET", "key", "value")])
    # and when it is granted
    operator("ACL", "SETUSER", "worker", "+set")
    assert not is_write_refused(client)
    client.close()


def test_a_script_that_the_server_forgot_is_loaded_again(client: RedisClient, operator: Callable[..., Any]) -> None:
    # given
    client.run_script(WRITE, [(["key"], ["before"])])
    operator("SCRIPT", "FLUSH")
    # when
    replies = client.run_script(WRITE, [(["key"], ["after"]), (["other"], ["after"])])
    # then
    assert replies == [1, 1]
    assert client.pipeline([("MGET", "key", "other")]) == [[b"after", b"after"]]


def test_an_error_of_our_own_command_is_no_reason_to_wait(client: RedisClient) -> None:
    # given
    client.pipeline([("LPUSH", "list", "x")])
    # then
    for mistake in (("GET", "list"), ("NONSENSE",), ("SET", "key")):
        with pytest.raises(redis.ResponseError):
            client.pipeline([mistake])


def test_only_absent_keys_are_set_and_the_rest_is_told(client: RedisClient) -> None:
    # given
    client.pipeline([("SET", "held", "first")])
    # when
    replies = client.set_if_absent([("held", b"second"), ("free", b"one"), ("free", b"two")], 60)
    # then
    assert replies == [b"first", None, b"one"]
    assert client.pipeline([("MGET", "held", "free")]) == [[b"first", b"one"]]


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_a_server_that_may_throw_keys_away_is_refused(
    client: RedisClient, operator: Callable[..., Any], policy: str
) -> None:
    # given a policy alone, which throws nothing away while there is no limit
    operator("CONFIG", "SET", "maxmemory-policy", policy)
    client.check()
    # when
    operator("CONFIG", "SET", "maxmemory", "100mb")
    # then
    with pytest.raises(BadConfig) as raised:
        client.check()
    assert raised.value.errors == [f"Redis {client.name} should run `noeviction`. Found `{policy}`."]
    operator("CONFIG", "SET", "maxmemory-policy", "noeviction")
    client.check()


def test_a_server_that_does_not_tell_its_policy_is_accepted_with_a_warning(
    server: RedisServer, operator: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    # given
    operator("ACL", "SETUSER", "worker", "on", ">pass", "~*", "+@all", "-config")
    client = RedisClient(url=server.url.replace("//", "//worker:pass@"), timeout_s=TIMEOUT_S)
    # when
    client.check()
    # then
    (message,) = caplog.messages
    assert "should run `noeviction`. Its policy cannot be read" in message
    client.close()


def test_a_check_waits_for_a_server_that_is_away(server: RedisServer, client: RedisClient) -> None:
    server.kill()

    with pytest.raises(Unavailable):
        client.check()


def test_a_connection_that_is_reset_while_replies_are_read_is_a_server_that_does_not_answer(
    client: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a socket that tells of a reset under its own name
    def reset(*_: object) -> None:
        raise ConnectionResetError(104, "Connection reset by peer")

    # when
    with monkeypatch.context() as patched:
        patched.setattr("worker.redis.wire.RawWire.read", reset)
        with pytest.raises(Unavailable, match="Connection reset by peer"):
            client.pipeline([("PING",)])
    # then
    assert client.pipeline([("PING",)]) == [b"PONG"]
