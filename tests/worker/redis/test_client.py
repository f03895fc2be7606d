"""The Redis client sorts the errors of servers by what the caller does next. Each test has its own server."""

import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import pytest
import redis

from contract.errors import BadConfig, Unavailable
from devservers.embedded import EmbeddedValkey
from devservers.redis_server import RedisServer
from tests.polling import wait_until
from worker.redis.client import PermissionDenied, RedisClient, WrongType, to_pairs

WRITE: Final = "redis.call('SET', KEYS[1], ARGV[1]); return 1"
TIMEOUT_S: Final = 20.0


@pytest.fixture(params=[RedisServer, EmbeddedValkey])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with request.param() as started:
        yield started


@pytest.fixture
def client(server: RedisServer) -> Iterator[RedisClient]:
    client = RedisClient(url=server.url, timeout_s=TIMEOUT_S)
    yield client
    client.close()


@pytest.fixture
def operator(server: RedisServer) -> Iterator[Callable[..., Any]]:
    """Sends commands as an operator of the server would."""
    connection = redis.Redis.from_url(server.url)
    yield connection.execute_command
    connection.close()


def ask_until_answered(client: RedisClient, *commands: Sequence[str]) -> list[Any]:
    """The replies; a client with a short timeout may have to ask a slow server again."""
    replies = list[Any]()

    def ask() -> bool:
        try:
            replies[:] = client.pipeline(commands)
        except Unavailable:
            return False
        return True

    wait_until(ask)
    return replies


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
    ]


def test_a_full_server_is_unavailable(client: RedisClient, operator: Callable[..., Any]) -> None:
    # given a server that may not evict keys and has no memory left
    client.run_script(WRITE, [(["key"], ["value"])])
    operator("CONFIG", "SET", "maxmemory", "1")
    # then
    for write in list_write_calls(client):
        with pytest.raises(Unavailable, match=r"should take commands.*maxmemory"):
            write()
    # and when there is memory again
    operator("CONFIG", "SET", "maxmemory", "0")
    for write in list_write_calls(client):
        write()


def test_a_server_that_became_a_replica_is_unavailable(
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
        # and when it refuses reads too
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


def test_a_server_that_cannot_save_is_unavailable(client: RedisClient, operator: Callable[..., Any]) -> None:
    # given a server that refuses writes while it cannot save, without its folder
    client.pipeline([("SET", "key", "value")])
    operator("CONFIG", "SET", "save", "3600 1")
    shutil.rmtree(dict(to_pairs(operator("CONFIG", "GET", "dir")))[b"dir"])
    operator("BGSAVE")
    wait_until(lambda: operator("INFO", "PERSISTENCE")["rdb_last_bgsave_status"] == "err")
    # then
    for write in list_write_calls(client):
        with pytest.raises(Unavailable, match="should take commands"):
            write()
    # and when it does not save any more
    operator("CONFIG", "SET", "save", "")
    assert not is_write_refused(client)


def test_a_server_busy_with_a_script_is_unavailable(
    server: RedisServer, client: RedisClient, operator: Callable[..., Any]
) -> None:
    # given
    operator("CONFIG", "SET", "lua-time-limit", "20")
    looping = RedisClient(url=server.url, timeout_s=TIMEOUT_S)
    errors: list[BaseException] = []

    def loop() -> None:
        try:
            looping.run_script("while true do end", [([], [])])
        except redis.ResponseError as error:
            errors.append(error)

    thread = threading.Thread(target=loop)
    thread.start()
    # then
    wait_until(lambda: is_write_refused(client))
    # and when the script has ended
    operator("SCRIPT", "KILL")
    thread.join(TIMEOUT_S)
    assert len(errors) == 1
    assert not is_write_refused(client)
    looping.close()


def test_a_server_that_loads_its_data_is_unavailable() -> None:
    # given a server that takes a while to load its data
    with RedisServer(settings={"key-load-delay": "200", "loading-process-events-interval-bytes": "1024"}) as server:
        client, reasons = RedisClient(url=server.url, timeout_s=TIMEOUT_S), set[str]()
        client.pipeline([("SET", f"key{n}", "x" * 100) for n in range(3_000)])
        server.stop()

        def answers() -> bool:
            try:
                return client.pipeline([("GET", "key7")]) == [b"x" * 100]
            except Unavailable as error:
                reasons.add("loading" if "loading" in str(error) else "away")
                return False

        # when
        assert not answers()
        server.process.start()
        wait_until(answers)
        # then
        assert reasons == {"away", "loading"}
        client.close()


def test_an_unreachable_or_frozen_server_is_unavailable(server: RedisServer) -> None:
    # given a client with a short timeout
    client = RedisClient(url=server.url, timeout_s=0.2)
    ask_until_answered(client, ("SET", "key", "value"))
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
    assert ask_until_answered(client, ("GET", "key")) == [None]
    client.close()


def test_a_connection_cut_during_a_command_is_unavailable(
    server: RedisServer, client: RedisClient, operator: Callable[..., Any]
) -> None:
    # given a command that blocks at the server
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


@pytest.mark.parametrize("credentials", ["", ":wrong@", "unknown:secret@"])
def test_a_wrong_password_is_unavailable_and_never_logged(
    server: RedisServer, operator: Callable[..., Any], credentials: str
) -> None:
    # given
    operator("CONFIG", "SET", "requirepass", "secret")
    client = RedisClient(url=server.url.replace("//", f"//{credentials}"), timeout_s=TIMEOUT_S)
    # when
    with pytest.raises(Unavailable):
        client.pipeline([("MGET", *(f"key{number}" for number in range(50)))])  # which gets another error
    with pytest.raises(Unavailable) as raised:
        client.pipeline([("GET", "key")])
    # then
    assert "wrong" not in str(raised.value)
    assert "unknown:secret" not in str(raised.value)
    # and when the server's password is that of the client
    operator("CONFIG", "SET", "requirepass", "")
    client.close()


def test_a_password_is_no_part_of_the_client_s_name() -> None:
    assert RedisClient(url="redis://host:1/0?password=secret", timeout_s=1).name == "redis://host:1/0"
    assert RedisClient(url="redis://me:secret@host:1/0", timeout_s=1).name == "host:1/0"


def test_a_missing_permission_is_unavailable(server: RedisServer, operator: Callable[..., Any]) -> None:
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


def test_a_flushed_script_is_loaded_again(client: RedisClient, operator: Callable[..., Any]) -> None:
    # given
    client.run_script(WRITE, [(["key"], ["before"])])
    operator("SCRIPT", "FLUSH")
    # when
    replies = client.run_script(WRITE, [(["key"], ["after"]), (["other"], ["after"])])
    # then
    assert replies == [1, 1]
    assert client.pipeline([("MGET", "key", "other")]) == [[b"after", b"after"]]


def test_an_error_of_the_command_itself_is_not_retried(client: RedisClient) -> None:
    # given
    client.pipeline([("LPUSH", "list", "x")])
    # then
    for mistake in (("NONSENSE",), ("SET", "key")):
        with pytest.raises(redis.ResponseError):
            client.pipeline([mistake])
    with pytest.raises(WrongType, match="should have the type that workers write") as raised:
        client.pipeline([("PING",), ("GET", "list")])
    assert raised.value.key == "list"


def test_only_a_key_of_another_type_is_deleted(client: RedisClient) -> None:
    # given
    client.pipeline([("LPUSH", "list", "x"), ("SET", "text", "y")])
    # when
    deleted = [client.delete_other_type(key, "string") for key in ("list", "text", "absent")]
    # then
    assert deleted == [True, False, False]
    assert client.pipeline([("EXISTS", "list"), ("EXISTS", "text")]) == [0, 1]


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_a_server_that_may_evict_keys_is_refused(
    client: RedisClient, operator: Callable[..., Any], policy: str
) -> None:
    # given a policy alone, which evicts nothing without a limit
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


def test_a_server_with_an_unreadable_policy_is_accepted_with_a_warning(
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


def test_a_check_of_an_unreachable_server_is_unavailable(server: RedisServer, client: RedisClient) -> None:
    server.kill()

    with pytest.raises(Unavailable):
        client.check()


def test_a_connection_reset_during_a_read_is_unavailable(client: RedisClient, monkeypatch: pytest.MonkeyPatch) -> None:
    # given a socket that raises its own error at a reset
    def reset(*_: object) -> None:
        raise ConnectionResetError(104, "Connection reset by peer")

    # when
    with monkeypatch.context() as patched:
        patched.setattr("worker.redis.wire.RawWire.read", reset)
        with pytest.raises(Unavailable, match="Connection reset by peer"):
            client.pipeline([("PING",)])
    # then
    assert client.pipeline([("PING",)]) == [b"PONG"]


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (redis.ResponseError("DB index is out of range"), BadConfig),
        (redis.exceptions.NoPermissionError("no SELECT"), PermissionDenied),
        (redis.AuthenticationError("WRONGPASS"), Unavailable),
    ],
)
def test_a_connection_that_a_server_refuses_is_sorted_by_its_reason(
    monkeypatch: pytest.MonkeyPatch, reply: Exception, expected: type[Exception]
) -> None:
    # given
    client = RedisClient(url="redis://127.0.0.1:9/99", timeout_s=1)

    def refuse() -> None:
        raise reply

    monkeypatch.setattr(client._redis.connection_pool, "get_connection", refuse)
    # then
    with pytest.raises(expected):
        client.pipeline([("PING",)])
    with pytest.raises(expected):
        client.read_hashes(["key"])


def test_a_server_that_is_no_redis_is_unavailable() -> None:
    # given a server of another protocol
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4_096)
                connection.sendall(b"<html>")

        thread = threading.Thread(target=answer)
        thread.start()
        client = RedisClient(url=f"redis://127.0.0.1:{server.getsockname()[1]}/0", timeout_s=5)
        # then
        with pytest.raises(Unavailable, match=r"127\.0\.0\.1:\d+/0 should answer. Found: Protocol error"):
            client.pipeline([("PING",)])
        thread.join()
        client.close()
