"""What the three services have in common when they run as plain processes."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from pathlib import Path

from . import process
from .fault import Fault
from .folders import shown
from .install import cause
from .ports import ALL_PORTS, require_free

READY_SECONDS = 90.0


class Service:
    """One service of one stack. Its folder holds `config`, `data`, `log` and `pid`.

    A subclass says how to prepare it, its command line, and when it is ready.
    """

    name: str
    # How long an ordinary stop may take before the process is killed.
    stop_seconds = 20.0

    def __init__(self, folder: Path, ports: Mapping[str, int]) -> None:
        self.folder = folder / self.name
        self.data = self.folder / "data"
        self.log = self.folder / "log"
        self.pid_file = self.folder / "pid"
        self.all_ports = ports

    # For subclasses

    def prepare(self) -> None:
        """Writes the configuration. Called before every start; data of an earlier run may be there."""

    def argv(self) -> list[str]:
        """The command line; it must contain the stack's folder, by which we know our process again."""
        raise NotImplementedError

    def ready(self) -> bool:
        """Asks the service itself, with a short timeout."""
        raise NotImplementedError

    def worth_retrying(self, log: str) -> bool:
        """Whether a start that failed with this log may well succeed a moment later."""
        del log
        return False

    # The same for all

    @property
    def ports(self) -> list[tuple[str, int]]:
        """This service's ports, by their keys in `ALL_PORTS`."""
        return [(key, self.all_ports[key]) for key, port in ALL_PORTS.items() if port.service == self.name]

    def state(self) -> str:
        """`running`, `paused` or `stopped`."""
        pid = process.running(self.pid_file)
        if pid is None:
            return "stopped"
        return "paused" if process.paused(pid) else "running"

    def pid(self) -> str:
        """The process id as text, `-` when stopped."""
        return str(process.running(self.pid_file) or "-")

    def check_ports(self) -> None:
        """Raises a fault when the service is stopped and somebody else has one of its ports."""
        if self.state() == "stopped":
            for key, number in self.ports:
                require_free(key, number)

    def start(self) -> None:
        """Starts the service if it is stopped, and waits until it is ready."""
        deadline = time.monotonic() + READY_SECONDS
        pid = 0
        while True:
            self.check_ports()
            self.data.mkdir(parents=True, exist_ok=True)
            log_start = self.log.stat().st_size if self.log.exists() else 0
            if self.state() == "stopped":
                self.prepare()
                pid = process.spawn(self.argv(), self.log, self.pid_file, self.folder)
            elif self.state() == "paused":
                raise Fault(f"{self.name} is paused: resume it")
            if self._became_ready(deadline):
                return
            with open(self.log, "rb") as file:
                file.seek(log_start)
                log = file.read().decode(errors="replace")
            if not self.worth_retrying(log) or time.monotonic() > deadline:
                how = f" by {end}" if (end := process.end(pid)) else ""
                raise Fault(f"{self.name} died at start{how}: {cause(log)} (log: {shown(self.log)})")
            time.sleep(0.2)

    def _became_ready(self, deadline: float) -> bool:
        """Waits for readiness; False when the process has died."""
        while not self.ready():
            if self.state() == "stopped":
                return False
            if time.monotonic() > deadline:
                raise Fault(f"{self.name} was not ready after {READY_SECONDS:.0f} s (log: {shown(self.log)})")
            time.sleep(0.05)
        # Ready said whoever answered on that port; make sure it was our process.
        return self.state() != "stopped"

    def stop(self) -> None:
        """An ordinary stop: the service may write out what it has."""
        process.terminate(self.pid_file, self.stop_seconds)

    def kill(self) -> None:
        """kill -9; returns when the process is gone."""
        process.kill(self.pid_file)

    def pause(self) -> None:
        """Freezes the process: it keeps its connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Lets a paused process go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        pid = process.running(self.pid_file)
        if pid is None:
            raise Fault(f"{self.name} is not running")
        process.send(pid, number)
        # The kernel stops the threads one by one; only then does the caller's test begin.
        while number == signal.SIGSTOP and process.state(pid) not in ("T", ""):
            time.sleep(0.005)
