"""A stack of plain processes, started from what package registries have."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Callable

from . import install
from .clickhouse import ClickHouse
from .fault import Fault
from .kafka import Kafka, nodes
from .mosquitto import Mosquitto
from .service import Service
from .stack import Stack, Status, read_record


class NativeStack(Stack):
    """Mosquitto, Apache Kafka and ClickHouse without Docker."""

    engine = "native"

    def up(self, free_ports: bool, brokers: int = 1) -> None:
        ensure(build=False)
        running = any(service.state() != "stopped" for service in self._services())
        self.settle_ports(free_ports, running, brokers)
        _all_at_once(service.start for service in self._services())

    def down(self, keep: bool) -> None:
        services = self._services()
        # Data about to be deleted need not be written out first.
        _all_at_once(service.stop if keep else service.kill for service in services)
        if not keep and self.folder.exists():
            shutil.rmtree(self.folder)

    def act(self, verb: str, service: str) -> None:
        self.ports()
        one = next((candidate for candidate in self._services() if candidate.name == service), None)
        if one is None:
            raise Fault(f"the stack `{self.name}` has no {service}: it is for `up --brokers 3`")
        {"start": one.start, "stop": one.stop, "kill": one.kill, "pause": one.pause, "resume": one.resume}[verb]()

    def status(self) -> list[Status]:
        return [
            Status(
                service.name, service.state(), service.pid(), ", ".join(f"{key} {port}" for key, port in service.ports)
            )
            for service in self._services()
        ]

    def log(self, service: str, lines: int) -> str:
        path = self.folder / service / "log"
        if not path.exists():
            raise Fault(f"{service} has no log: the stack `{self.name}` is not up")
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])

    def _services(self) -> list[Service]:
        ports = read_record(self.name).get("ports", {})
        brokers = [Kafka(self.folder, ports, node) for node in nodes(ports)]
        return [Mosquitto(self.folder, ports), *brokers, ClickHouse(self.folder, ports)]


def ensure(build: bool) -> None:
    """Installs and downloads what the services need; with `build` also what building streamer needs."""
    install.install([*install.needed_for_services(), *(install.missing_build_packages() if build else [])])
    _all_at_once([install.kafka_jars, install.clickhouse_library, *([install.python_packages] if build else [])])


def _all_at_once(actions: Iterable[Callable[[], object]]) -> None:
    """Runs all actions in parallel to their end; what went wrong comes as one fault."""
    actions = list(actions)
    with ThreadPoolExecutor(len(actions)) as pool:
        errors = [future.exception() for future in [pool.submit(action) for action in actions]]
    for error in errors:
        if error is not None and not isinstance(error, Fault):
            raise error
    faults = [str(error) for error in errors if error is not None]
    if faults:
        raise Fault("; ".join(faults))
