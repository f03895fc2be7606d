"""HTTP client for a process's health endpoint: readiness and metrics."""

import re
import urllib.error
import urllib.request
from typing import Final

SAMPLE: Final = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
TIMEOUT_S: Final = 2.0


class HealthProbe:
    """The health endpoint of a process on this machine."""

    def __init__(self, port: int) -> None:
        self.port = str(port)
        self.url = f"http://127.0.0.1:{port}"

    def is_ready(self) -> bool:
        return self._get("/readyz") is not None

    def read_version(self) -> str:
        """The version of the model it serves; empty if there is none or no answer."""
        for name, labels in self.read_samples():
            if name == "shopstream_model_info":
                return labels.partition('"')[2].rpartition('"')[0]
        return ""

    def read_total(self, name: str) -> float:
        """The sum of a metric over its labels; 0 without an answer."""
        return sum(value for (sample_name, _), value in self.read_samples().items() if sample_name == name)

    def read_samples(self) -> dict[tuple[str, str], float]:
        """Values by metric name and label text; empty without an answer."""
        text = self._get("/metrics") or ""
        return {(name, labels): float(value) for name, labels, value in SAMPLE.findall(text)}

    def _get(self, path: str) -> str | None:
        try:
            with urllib.request.urlopen(self.url + path, timeout=TIMEOUT_S) as response:
                return str(response.read().decode())
        except (OSError, urllib.error.URLError):
            return None
