"""One named stack of the three services: what is the same with and without Docker."""

from __future__ import annotations

import abc
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .fault import Fault
from .folders import locked, shown, stacks_dir
from .ports import ALL_PORTS, PORTS, choose, require_free

SERVICES = ("mosquitto", "kafka", "clickhouse")
# Those that `up --brokers 3` adds.
MORE_BROKERS = ("kafka2", "kafka3")
ENGINES = ("docker", "native")


@dataclass(frozen=True)
class Status:
    """One line of `status`."""

    service: str
    state: str
    pid: str
    ports: str


class Stack(abc.ABC):
    """A stack and its folder, which holds `stack.json`: the engine and the ports in use.

    Every method that changes something raises `Fault` when it cannot, and must be called under `lock()`.
    """

    engine: str

    def __init__(self, name: str) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,30}", name):
            raise Fault(f"`{name}` cannot name a stack: use small letters, digits and hyphens")
        self.name = name
        self.folder = stacks_dir() / name

    # What an engine does

    @abc.abstractmethod
    def up(self, free_ports: bool, brokers: int = 1) -> None:
        """Starts what is not running, all at once, and returns when all are ready."""

    @abc.abstractmethod
    def down(self, keep: bool) -> None:
        """Stops everything, and removes the data unless `keep`."""

    @abc.abstractmethod
    def act(self, verb: str, service: str) -> None:
        """Does `start` (and waits until ready), `stop`, `kill`, `pause` or `resume` on one service."""

    @abc.abstractmethod
    def status(self) -> list[Status]:
        """The state of each service."""

    @abc.abstractmethod
    def log(self, service: str, lines: int) -> str:
        """The last lines of a service's log."""

    # The same for all

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Held during a change, so that two commands on one stack come one after the other."""
        path = stacks_dir() / f"{self.name}.lock"
        with locked(path):
            try:
                yield
            finally:
                if not self.folder.exists():
                    path.unlink(missing_ok=True)

    def ports(self) -> dict[str, int]:
        """The ports in use, or a fault when the stack has never been up."""
        recorded = read_record(self.name).get("ports")
        if not recorded:
            raise Fault(f"the stack `{self.name}` is not up")
        return recorded

    def environment(self) -> dict[str, str]:
        """The variables under which streamer's pipelines and tests find this stack."""
        ports = self.ports()
        return {
            "MQTT_BROKER": "127.0.0.1",
            "MQTT_PORT": str(ports["mqtt"]),
            "MQTT_WS_PORT": str(ports["mqtt_ws"]),
            "KAFKA_BOOTSTRAP": ",".join(f"127.0.0.1:{ports[key]}" for key in ("kafka", *MORE_BROKERS) if key in ports),
            "CLICKHOUSE_URL": f"http://127.0.0.1:{ports['clickhouse_http']}",
            "CLICKHOUSE_TCP_PORT": str(ports["clickhouse_tcp"]),
            "STREAMER_STACK": self.name,
        }

    def settle_ports(self, free_ports: bool, running: bool, brokers: int) -> None:
        """Chooses the ports and records them. A stack that is partly running keeps those it has, and so its brokers."""
        if running:
            return
        # Two stacks that start together must not choose the same ones.
        with locked(stacks_dir() / ".ports.lock"):
            recorded = {} if free_ports else read_record(self.name).get("ports", {})
            ports = choose(
                PORTS if brokers == 1 else ALL_PORTS,
                well_known=self.name == "dev" and not free_ports,
                use_environment=not free_ports,
                recorded=recorded,
                avoid=_ports_of_other_stacks(self.name),
            )
            for key, number in ports.items():
                require_free(key, number)
            self.folder.mkdir(parents=True, exist_ok=True)
            partial = self.folder / "stack.partial"
            partial.write_text(json.dumps({"engine": self.engine, "ports": ports}, indent=2) + "\n")
            partial.replace(record_file(self.name))


def record_file(name: str) -> Path:
    """Where a stack's engine and ports are written."""
    return stacks_dir() / name / "stack.json"


def read_record(name: str) -> Mapping:
    """A stack's engine and ports; empty when it is not up."""
    path = record_file(name)
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise Fault(f"cannot read {shown(path)}: {error}") from error
    if not isinstance(record, dict) or record.get("engine") not in ENGINES or not isinstance(record.get("ports"), dict):
        raise Fault(f"{shown(path)} is damaged: remove it, and end by hand what may still run")
    return record


def _ports_of_other_stacks(name: str) -> set[int]:
    others = [path.parent.name for path in stacks_dir().glob("*/stack.json") if path.parent.name != name]
    return {port for other in others for port in read_record(other)["ports"].values()}
