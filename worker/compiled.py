"""`python -m worker.compiled` compiles ahead what workers run compiled, as `contract.compiled` does for folds."""

from contract.compiled import load_folds
from worker.replies import ReplyReader

REPLY = b"*2\r\n$1\r\na\r\n$1\r\nb\r\n"


def load_compiled() -> None:
    """Fold one event and read one reply: what numba compiles is kept beside the code, and loaded from there."""
    load_folds()
    ReplyReader().read(1, load_reply)


def load_reply(room: memoryview) -> int:
    room[: len(REPLY)] = REPLY
    return len(REPLY)


if __name__ == "__main__":
    load_compiled()
