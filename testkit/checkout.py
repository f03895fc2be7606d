"""The folder of this checkout, and what a child process has to know of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
CHECKOUT_VARIABLES: Final[Mapping[str, str]] = {
    "PYTHONPATH": str(ROOT),
    "SHOPSTREAM_CONFIG": str(ROOT / "shop.toml"),
    "SHOPSTREAM_FEATURES": str(ROOT / "features.toml"),
}
