"""A way to a broker that ends at a chosen request: its clients are left without any broker."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Final, NamedTuple, Self

HOST: Final = "127.0.0.1"
# Numbers of requests in Kafka's protocol.
PRODUCE: Final = 0
INIT_PRODUCER_ID: Final = 22
ADD_OFFSETS_TO_TXN: Final = 25
END_TXN: Final = 26
TXN_OFFSET_COMMIT: Final = 28


class Cut(NamedTuple):
    """Where the way ends: at the n-th request of a kind, before the broker has it, or once it has answered."""

    request: int
    is_answered: bool = False
    occurrence: int = 1


class KafkaProxy:
    """Passes connections on to a broker on this machine, in whose answers it puts itself, until `cut`."""

    def __init__(self, port: int, cut: Cut) -> None:
        """`port`: of the broker."""
        self._port, self._cut = port, cut
        self._lock = threading.Lock()
        self._count = 0
        self._sockets: list[socket.socket] = []
        self._cut_answer: tuple[socket.socket, bytes] | None = None  # the connection and the number of the request
        self.is_cut = False
        self._listener = socket.create_server((HOST, 0))
        self.own_port: int = self._listener.getsockname()[1]
        self._start(self._accept)

    @property
    def bootstrap(self) -> str:
        return f"{HOST}:{self.own_port}"

    def close(self) -> None:
        """Close all connections, and accept no more."""
        with self._lock:
            self.is_cut = True
            for each in (self._listener, *self._sockets):
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                each.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, run: object, *args: object) -> None:
        threading.Thread(target=run, args=args, daemon=True).start()  # type: ignore[arg-type]

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                broker = socket.create_connection((HOST, self._port))
                with self._lock:
                    self._sockets += [client, broker]
                    if self.is_cut:
                        return
                self._start(self._pass_requests, client, broker)
                self._start(self._pass_answers, broker, client)

    def _pass_requests(self, client: socket.socket, broker: socket.socket) -> None:
        with suppress(OSError):
            for frame in read_frames(client):
                if int.from_bytes(frame[:2]) == self._cut.request:
                    self._count += 1
                    if self._count == self._cut.occurrence:
                        if not self._cut.is_answered:
                            self.close()
                            return
                        self._cut_answer = client, frame[4:8]
                send_frame(broker, frame)

    def _pass_answers(self, broker: socket.socket, client: socket.socket) -> None:
        address, own_address = (HOST.encode() + port.to_bytes(4) for port in (self._port, self.own_port))
        with suppress(OSError):
            for frame in read_frames(broker):
                if self._cut_answer == (client, frame[:4]):
                    self.close()
                    return
                send_frame(client, frame.replace(address, own_address))


def read_frames(source: socket.socket) -> Iterator[bytes]:
    """The requests or answers that arrive, without their lengths."""
    with source.makefile("rb") as stream:
        while len(length := stream.read(4)) == 4:
            yield stream.read(int.from_bytes(length))


def send_frame(target: socket.socket, frame: bytes) -> None:
    target.sendall(len(frame).to_bytes(4) + frame)
