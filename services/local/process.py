"""Background processes that outlive the command that started them, known by a pid file.

A pid alone is no proof: pids are reused, and after a reboot any pid file is stale. So the pid file also holds
the command line, and a process counts as ours only while /proc shows that same command line. The command line
names the stack's own folder, so two stacks never take each other's processes for their own.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path

from .fault import Fault


# How children of ours have ended, as `os.waitpid` says it.
ENDS: dict[int, int] = {}


def end(pid: int) -> str:
    """How a child of ours has ended, in words; empty when that is not known."""
    if pid not in ENDS:
        return ""
    code = os.waitstatus_to_exitcode(ENDS[pid])
    return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"


def spawn(argv: list[str], log: Path, pid_file: Path, cwd: Path) -> int:
    """Starts `argv` in a session of its own, its output appended to `log`, and returns its pid.

    It inherits none of our pipes: a caller that reads our output must see its end when we exit.
    """
    with open(log, "ab") as output:
        try:
            child = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=cwd, start_new_session=True
            )
        except OSError as error:
            raise Fault(f"cannot start {argv[0]}: {error.strerror}") from error
    child.returncode = 0  # it is not ours to wait for; without this Python warns that it still runs
    partial = pid_file.with_suffix(".partial")
    partial.write_text(json.dumps({"pid": child.pid, "argv": argv}))
    partial.replace(pid_file)
    return child.pid


def running(pid_file: Path) -> int | None:
    """The pid in `pid_file` if that process still lives and is the one we started, else None."""
    try:
        record = json.loads(pid_file.read_text())
        pid, argv = int(record["pid"]), record["argv"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    for _ in range(100):
        if gone(pid):
            return None
        found = command_line(pid)
        if found:
            return pid if found == argv else None
        # It lives and shows no arguments: it is about to become another program, or to end.
        time.sleep(0.01)
    return None


def command_line(pid: int) -> list[str]:
    """The arguments of a process; empty when it is gone, exiting or in the middle of exec."""
    try:
        text = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return []
    return text.rstrip("\0").split("\0") if text else []


def gone(pid: int) -> bool:
    """True when the process has ended to the last thread, so that its ports, files and locks are free again."""
    with contextlib.suppress(ChildProcessError):
        ended, status = os.waitpid(pid, os.WNOHANG)  # when it is our own child, nobody else clears it away
        if ended:
            ENDS[pid] = status
    if state(pid) not in ("", "Z", "X"):
        return False
    try:
        # A leader can be a zombie while other threads still hold the open files.
        return len(os.listdir(f"/proc/{pid}/task")) <= 1
    except OSError:
        return True


def state(pid: int) -> str:
    """The state letter of /proc/PID/stat (`T` is stopped, `Z` a zombie), empty when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def paused(pid: int) -> bool:
    """True while the process is held by SIGSTOP."""
    return state(pid) == "T"


def terminate(pid_file: Path, patience: float) -> None:
    """Asks the process to end; after `patience` seconds it is killed. No process: nothing to do."""
    pid = running(pid_file)
    if pid is None:
        return
    send(pid, signal.SIGTERM)
    send(pid, signal.SIGCONT)  # a paused process would sit on the SIGTERM
    if not wait_gone(pid, patience):
        kill(pid_file)


def kill(pid_file: Path) -> None:
    """SIGKILL, and waits until the process is gone. No process: nothing to do."""
    pid = running(pid_file)
    if pid is None:
        return
    send(pid, signal.SIGKILL)
    if not wait_gone(pid, 30):
        raise Fault(f"process {pid} does not end, not even after SIGKILL ({' '.join(command_line(pid)[:1])})")


def send(pid: int, number: signal.Signals) -> None:
    """Sends a signal; a process that has just ended is fine."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def wait_gone(pid: int, seconds: float) -> bool:
    """Waits for the process to end; False when it has not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not gone(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
