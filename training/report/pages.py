"""Pages of reports: templates filled, and files that appear whole or not at all."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import jinja2

from contract.errors import BadData
from training.data.parquet import write_atomically

TEMPLATES: Final = Path(__file__).with_name("templates")


def render_template(template: str, **values: Any) -> str:
    """A template of `templates/` with these values; HTML is escaped, a name that is not given is a mistake."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=template.endswith(".html"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"figure": format_number, "number": lambda value: f"{value:,}"}
    return environment.get_template(template).render(**values)


def format_number(value: float | None) -> str:
    """Four digits; a dash where there is none."""
    return "–" if value is None or value != value else f"{value:.4g}"


def find_output_errors(folder: Path) -> list[str]:
    """Why reports could not go to that folder, as sentences: told before anything is measured."""
    return [f"`--out` should be a folder. Found a file at {folder}."] * (folder.exists() and not folder.is_dir())


def write_pages(folder: Path, pages: Mapping[str, bytes]) -> list[Path]:
    """Write each file whole, in order; raises `BadData` where one cannot be written, what stood there stays."""
    try:
        for name, content in pages.items():
            write_atomically(folder / name, content)
    except OSError as error:
        raise BadData(f"{folder} should be a folder that takes reports. Found: {error}") from error
    return [folder / name for name in pages]
