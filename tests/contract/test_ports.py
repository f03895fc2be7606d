"""Processes of one machine share a port in their settings: each serves on the next free one, and says so."""

import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from contract.errors import BadConfig
from contract.ports import TRIED, serve_on_free_port

Bind = Callable[[int], socket.socket]


@pytest.fixture
def bind() -> Iterator[Bind]:
    """Listens on a port until the end of the test."""
    with ExitStack() as stack:

        def listen(port: int) -> socket.socket:
            return stack.enter_context(socket.create_server(("127.0.0.1", port)))

        yield listen


def refuse(code: int) -> Bind:
    def raise_error(port: int) -> socket.socket:
        raise OSError(code, "refused")

    return raise_error


def test_a_second_process_serves_on_another_port_and_says_so(bind: Bind, caplog: pytest.LogCaptureFixture) -> None:
    # given
    port = bind(0).getsockname()[1]
    # when
    second = serve_on_free_port("worker.http_port", port, bind).getsockname()[1]
    # then
    assert port < second < port + TRIED
    assert f"Found port {port} in use: serving on port {second}." in caplog.text


def test_a_free_port_is_taken_without_a_word(bind: Bind, caplog: pytest.LogCaptureFixture) -> None:
    assert serve_on_free_port("worker.http_port", 0, bind).getsockname()[1] > 0
    assert not caplog.text


@pytest.mark.parametrize(("code", "words"), [(errno.EADDRINUSE, "9100 to 9119 in use"), (errno.EACCES, "9100")])
def test_a_port_that_cannot_be_served_is_a_mistake_that_names_setting_and_port(code: int, words: str) -> None:
    with pytest.raises(BadConfig, match=r"`watch\.http_port` should be .* Found") as caught:
        serve_on_free_port("watch.http_port", 9100, refuse(code))
    assert words in str(caught.value)
