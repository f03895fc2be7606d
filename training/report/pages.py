"""Report pages: filled templates, and files that are written atomically."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import jinja2
import msgspec

from contract.errors import BadData
from contract.settings.section import encode_section
from training.data.parquet import write_atomically
from training.report.console import format_number

TEMPLATES: Final = Path(__file__).with_name("templates")


def render_template(template: str, **values: Any) -> str:
    """A template of `templates/` filled with these values; HTML is escaped, an undefined name is an error."""
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


def encode_json(value: Any) -> bytes:
    """A report as an indented JSON file."""
    return msgspec.json.format(msgspec.json.encode(value, enc_hook=encode_section), indent=1) + b"\n"


def find_output_errors(folder: Path) -> list[str]:
    """Why reports cannot be written to that folder, as sentences; checked before anything is measured."""
    if folder.exists() and not folder.is_dir():
        return [f"`--out` should be a folder. Found a file at {folder}."]
    return []


def write_pages(folder: Path, pages: Mapping[str, bytes]) -> list[Path]:
    """Write each file atomically, in order; raises `BadData` for a failed write, which leaves the former file."""
    try:
        for name, content in pages.items():
            write_atomically(folder / name, content)
    except OSError as error:
        raise BadData(f"{folder} should be a folder that reports can be written to. Found: {error}") from error
    return [folder / name for name in pages]
