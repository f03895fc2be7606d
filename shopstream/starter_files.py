"""The files that a shop begins with: those of the checkout, which the package carries."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

STARTER: Final = Path(__file__).parent / "starter"
NAMES: Final = ("shop.toml", "features.toml")


def write_starter_files(folder: Path) -> Iterator[str]:
    """Write what does not exist yet, and say so, file by file; raises `OSError`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        path = folder / name
        try:
            with path.open("xb") as file:
                file.write((STARTER / name).read_bytes())
        except FileExistsError:
            yield f"{path} exists and stays as it is."
        else:
            yield f"Wrote {path}."
    yield "Set the addresses there or in the environment, then run: shopstream worker doctor"
