"""Queries to ClickHouse over HTTP."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.parse

from .fault import Fault
from .probe import open_local


def query(url: str, statement: str, default_format: str = "TabSeparated", timeout: float = 30.0) -> str:
    """Runs one statement as the user `default`; returns the answer as text."""
    address = f"{url}/?{urllib.parse.urlencode({'default_format': default_format})}"
    try:
        with open_local(address, statement.encode(), timeout) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        raise Fault(f"ClickHouse refused a statement: {error.read().decode(errors='replace').strip()[:500]}") from error
    except (OSError, http.client.HTTPException) as error:
        raise Fault(f"no answer from ClickHouse at {url}: {error}") from error


def statements(script: str) -> list[str]:
    """Splits a script: ClickHouse takes one statement a request. No `;` or `--` inside a string, please."""
    code = "\n".join(line.partition("--")[0] for line in script.splitlines())
    return [statement.strip() for statement in code.split(";") if statement.strip()]
