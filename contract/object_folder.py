"""A folder in an object store (S3, GCS, Azure and others through fsspec), with the part of `Path` that bundles need.

An object appears whole or not at all, so a pointer is replaced by writing it. There is no rename: a bundle is complete
when its `READY` is there, which is written last and removed first.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

from contract.errors import BadConfig

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class ObjectFolder:
    """A folder or object at `path` of an fsspec file system; errors of any client become `OSError`."""

    fs: Any
    path: str
    url: str

    def __truediv__(self, name: str) -> "ObjectFolder":
        return ObjectFolder(self.fs, f"{self.path}/{name}", f"{self.url}/{name}")

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]

    def exists(self) -> bool:
        return bool(self._call(self.fs.exists, self.path))

    def is_dir(self) -> bool:
        return bool(self._call(self.fs.isdir, self.path))

    def is_symlink(self) -> bool:
        return False

    def stat(self) -> Any:
        return SimpleNamespace(st_size=int(self._call(self.fs.size, self.path) or 0))

    def read_bytes(self) -> bytes:
        """The object's content; raises `FileNotFoundError`, or `OSError` for a store that does not answer."""
        return bytes(self._call(self.fs.cat_file, self.path))

    def write_bytes(self, content: bytes) -> None:
        """Create or replace the object; readers see the old content or the new one."""
        self._call(self.fs.pipe_file, self.path, content)

    def unlink(self, *, missing_ok: bool = False) -> None:
        try:
            self._call(self.fs.rm_file, self.path)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def remove_tree(self) -> None:
        """Remove everything below, `READY` first, so that no reader takes the rest for complete."""
        (self / "READY").unlink(missing_ok=True)
        if self.is_dir():
            self._call(self.fs.rm, self.path, recursive=True)

    def _call(self, function: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
        try:
            return function(*arguments, **options)
        except OSError:
            raise
        except Exception as error:  # clients of object stores have errors without a common base
            raise OSError(f"{self.url}: {type(error).__name__}: {error}") from error


Folder = Path | ObjectFolder


def open_folder(location: str | Path) -> Folder:
    """The folder at a path, or at a URL such as s3://bucket/bundles; raises `BadConfig` without the store's client."""
    text = str(location)
    if "://" not in text:
        return Path(location)
    try:
        import fsspec  # an optional dependency: folders need none

        fs, path = fsspec.url_to_fs(text.rstrip("/"), use_listings_cache=False)
    except (ImportError, ValueError) as error:
        advice = "`pip install shopstream[s3]` installs that of s3://"
        raise BadConfig([f"The client of {text} should be installed; {advice}. Found: {error}"]) from error
    return ObjectFolder(fs, path.rstrip("/"), text.rstrip("/"))
