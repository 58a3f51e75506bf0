"""Where things are: the checkout, the stacks' folders, the download cache; and locks between processes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
from collections.abc import Iterator
from pathlib import Path

SERVICES = Path(__file__).resolve().parent.parent
ROOT = SERVICES.parent


def stacks_dir() -> Path:
    """The folder with one folder per stack: pids, logs, data, generated configuration."""
    return Path(os.environ.get("STREAMER_SERVICES_DIR") or ROOT / ".services").absolute()


def cache_dir() -> Path:
    """The folder for downloads: outside the checkout, so that every checkout and every clean build shares it."""
    if os.environ.get("STREAMER_CACHE"):
        folder = Path(os.environ["STREAMER_CACHE"])
    else:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "streamer"
    folder.mkdir(parents=True, exist_ok=True)
    return folder.absolute()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds an exclusive lock on `path`; waits for whoever has it, and says so. A process that dies lets go of it.

    The holder may delete the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with open(path, "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"waiting for another process to release {shown(path)}", file=sys.stderr, flush=True)
                fcntl.flock(file, fcntl.LOCK_EX)
            # While we waited, the file may have been deleted: then others lock a new one of that name.
            if _same_file(file.fileno(), path):
                yield
                return


def _same_file(number: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(number), path.stat())
    except FileNotFoundError:
        return False


def shown(path: Path) -> str:
    """`path` as a person would type it: relative to the current folder where that is shorter."""
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)
