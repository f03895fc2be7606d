"""Records that confluent_kafka cannot write: header names of any bytes, through the client library that it contains."""

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import confluent_kafka

FLUSH_MS: Final = 30_000
PRODUCER: Final = 0  # RD_KAFKA_PRODUCER
COPY: Final = 2  # RD_KAFKA_MSG_F_COPY
TOPIC, PARTITION, VALUE, KEY, FLAGS, TIMESTAMP, HEADERS = 1, 3, 4, 5, 7, 8, 10  # rd_kafka_vtype_t


class _Memory(ctypes.Structure):
    _fields_ = (("start", ctypes.c_char_p), ("size", ctypes.c_size_t))


class _Content(ctypes.Union):
    _fields_ = (
        ("text", ctypes.c_char_p),
        ("int32", ctypes.c_int32),
        ("int64", ctypes.c_int64),
        ("memory", _Memory),
        ("pointer", ctypes.c_void_p),
        ("padding", ctypes.c_char * 64),
    )


class _Argument(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_int), ("content", _Content))


def _load_library() -> ctypes.CDLL:
    (path,) = Path(confluent_kafka.__path__[0]).parent.glob("confluent_kafka.libs/librdkafka*")
    library = ctypes.CDLL(str(path))
    for name in ("rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_headers_new", "rd_kafka_produceva"):
        getattr(library, name).restype = ctypes.c_void_p
    return library


def _content(**values: object) -> _Content:
    content = _Content()
    for name, value in values.items():
        setattr(content, name, value)
    return content


def _memory(value: bytes | None) -> _Content:
    return _content(memory=_Memory(value, 0 if value is None else len(value)))


def send_raw(
    bootstrap: str,
    topic: str,
    value: bytes | None,
    *,
    key: bytes | None = None,
    headers: Sequence[tuple[bytes, bytes | None]] = (),
    partition: int = 0,
    timestamp_ms: int = 0,
) -> None:
    """Append one record; header names may be any bytes without a NUL. `timestamp_ms` 0: the current time."""
    library, error = _load_library(), ctypes.create_string_buffer(512)
    configuration = ctypes.c_void_p(library.rd_kafka_conf_new())
    for name, setting in ((b"bootstrap.servers", bootstrap.encode()), (b"message.max.bytes", b"100000000")):
        assert library.rd_kafka_conf_set(configuration, name, setting, error, 512) == 0, error.value
    producer = ctypes.c_void_p(library.rd_kafka_new(PRODUCER, configuration, error, 512))
    assert producer.value, error.value
    pairs = ctypes.c_void_p(library.rd_kafka_headers_new(len(headers)))
    for name, content in headers:
        size = ctypes.c_ssize_t(-1 if content is None else len(content))
        library.rd_kafka_header_add(pairs, name, ctypes.c_ssize_t(len(name)), content, size)
    arguments = [
        _Argument(TOPIC, _content(text=topic.encode())),
        _Argument(PARTITION, _content(int32=partition)),
        _Argument(VALUE, _memory(value)),
        _Argument(KEY, _memory(key)),
        _Argument(FLAGS, _content(int32=COPY)),
        _Argument(TIMESTAMP, _content(int64=timestamp_ms)),
        _Argument(HEADERS, _content(pointer=pairs.value)),
    ]
    array = (_Argument * len(arguments))(*arguments)
    assert library.rd_kafka_produceva(producer, array, ctypes.c_size_t(len(arguments))) is None
    assert library.rd_kafka_flush(producer, FLUSH_MS) == 0
    library.rd_kafka_destroy(producer)
