"""A stack of containers: compose.yaml under a project name of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

from . import probe
from .fault import Fault
from .folders import ROOT
from .install import cause, program, say
from .ports import PORTS
from .stack import SERVICES, Stack, Status, read_record

READY_SECONDS = 120.0
VERBS = {"start": "start", "stop": "stop", "kill": "kill", "pause": "pause", "resume": "unpause"}
# Redpanda plays Kafka, as in a plain `docker compose up`.
CONTAINERS = {"mosquitto": "mosquitto", "kafka": "redpanda", "clickhouse": "clickhouse"}


class DockerStack(Stack):
    """The services of compose.yaml, without streamer itself and the web UI."""

    engine = "docker"

    def up(self, free_ports: bool, brokers: int = 1) -> None:
        if brokers > 1:
            raise Fault("more than one Kafka broker needs --engine native")
        running = any(status.state != "stopped" for status in self.status())
        self.settle_ports(free_ports, running, brokers)
        self._compose("up", "-d", *CONTAINERS.values())
        with ThreadPoolExecutor(len(SERVICES)) as pool:
            list(pool.map(self._wait_ready, SERVICES))

    def down(self, keep: bool) -> None:
        self._compose("down", *([] if keep else ["--volumes"]))
        if not keep and self.folder.exists():
            shutil.rmtree(self.folder)

    def act(self, verb: str, service: str) -> None:
        self.ports()
        self._compose(VERBS[verb], CONTAINERS[service])
        if verb == "start":
            self._wait_ready(service)

    def status(self) -> list[Status]:
        ports = read_record(self.name).get("ports", {})
        rows = _rows(self._compose("ps", "--all", "--format", "json")) if ports else []
        states = {row["Service"]: row["State"].replace("exited", "stopped") for row in rows}
        return [
            Status(
                service,
                states.get(CONTAINERS[service], "stopped"),
                "-",
                ", ".join(f"{key} {ports[key]}" for key, port in PORTS.items() if port.service == service and ports),
            )
            for service in SERVICES
        ]

    def log(self, service: str, lines: int) -> str:
        return self._compose("logs", "--no-color", "--tail", str(lines), CONTAINERS[service]).rstrip("\n")

    def _wait_ready(self, service: str) -> None:
        ports = self.ports()
        ready = {
            "mosquitto": lambda: probe.mqtt(ports["mqtt"]),
            "kafka": lambda: probe.kafka(ports["kafka"]),
            "clickhouse": lambda: probe.clickhouse(ports["clickhouse_http"]),
        }[service]
        deadline = time.monotonic() + READY_SECONDS
        while not ready():
            if time.monotonic() > deadline:
                raise Fault(
                    f"{service} was not ready after {READY_SECONDS:.0f} s (log: services/stack.py logs {service})"
                )
            time.sleep(0.2)

    def _compose(self, *arguments: str) -> str:
        ports = read_record(self.name).get("ports", {})
        return _compose(self.name, ports, *arguments)


def usable() -> bool:
    """True when a Docker engine answers, has Compose, and has or can pull the images."""
    if not program("docker"):
        return False
    if not _answers("docker", "info") or not _answers("docker", "compose", "version"):
        return False
    try:
        _compose("pull", {}, "pull", "--quiet", "--policy", "missing", *CONTAINERS.values())
    except Fault as fault:
        say(f"not using Docker: {fault}")
        return False
    return True


def _answers(*command: str) -> bool:
    """True when the command succeeds soon: a client may wait long for an engine that is not there."""
    quiet = subprocess.DEVNULL
    try:
        return subprocess.run(command, stdin=quiet, stdout=quiet, stderr=quiet, timeout=10).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _compose(name: str, ports: dict[str, int], *arguments: str) -> str:
    command = ["docker", "compose", "-p", f"streamer-{name}", "-f", str(ROOT / "compose.yaml"), *arguments]
    variables = {PORTS[key].variable: str(number) for key, number in ports.items()}
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env={**os.environ, **variables}
        )
    except OSError as error:
        raise Fault(f"cannot run docker: {error.strerror}") from error
    if done.returncode != 0:
        raise Fault(f"docker compose {arguments[0]} failed: {cause(done.stderr)}")
    return done.stdout


def _rows(answer: str) -> list[dict]:
    """What `ps --format json` says: one object a line, or one list in older versions of Compose."""
    if answer.lstrip().startswith("["):
        return json.loads(answer)
    return [json.loads(line) for line in answer.splitlines() if line.strip()]
