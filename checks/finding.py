"""One line of the repository that a check objects to."""

from typing import NamedTuple


class Finding(NamedTuple):
    """A line that should be reworded."""

    path: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"
