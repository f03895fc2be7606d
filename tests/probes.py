"""What a process under test answers over HTTP."""

import urllib.error
import urllib.request


def fetch_answer(port: int, path: str) -> tuple[int, str]:
    """Status and body; status 0 while the port does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""
