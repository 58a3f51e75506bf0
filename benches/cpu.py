#!/usr/bin/env python3
"""Measures what each shipped pipeline costs: CPU seconds per million messages and memory, counted at the far end.

CPU time is the streamer process's own, user and system, from its start until the last message has arrived.
One JSON line a pipeline goes to standard output. Use a release build. Rates are only what this machine gave: streamer
shares it with the brokers and the load, so compare CPU, not wall time.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Callable, Dict, List

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "services"))

from local import sql  # noqa: E402
from local.ports import free  # noqa: E402

PAYLOAD = (
    '{"device_id":"phone-007","ts":1767225600,"lat":52.520008,"lon":13.404954,"battery":84,'
    '"accel":{"x":0.0123,"y":-0.2345,"z":9.8067},"network":"wifi","firmware":"1.4.2","uptime_s":86400}'
)
PUBLISHERS = 4
PATIENCE_SECONDS = 600.0


class Streamer:
    """A running `streamer run`."""

    def __init__(self, binary: Path, pipelines: List[Path], environment: Dict[str, str], folder: Path) -> None:
        self.page = f"http://127.0.0.1:{free([])}"
        self.log = folder / f"{pipelines[0].stem}.log"
        own = {
            "STREAMER_HTTP": self.page.partition("//")[2],
            "STATE_DIR": str(folder / "state"),
            "ARCHIVE_DIR": str(folder / "archive"),
            "STREAMER_LOG": "warn",
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [str(binary), "run", *map(str, pipelines)], cwd=ROOT, env={**environment, **own}, stderr=log, stdout=log
            )

    def wait_ready(self) -> None:
        wait(f"streamer is not ready, see {self.log}", self._ready)

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(self.page + "/health/ready", timeout=5) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mib(self, name: str) -> float:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) / 1024
        raise RuntimeError(f"no {name} in /proc/{self.process.pid}/status")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        if code != 0:
            raise SystemExit(f"streamer ended with {code}, see {self.log}")


def wait(failure: str, fact: Callable[[], bool]) -> None:
    """Polls until the fact holds."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not fact():
        if time.monotonic() > end:
            raise SystemExit(failure)
        time.sleep(0.05)


def records(bootstrap: str, topic: str) -> int:
    """Messages in a Kafka topic, from its end offsets."""
    command = ["kcat", "-Q", "-b", bootstrap] + [w for p in range(4) for w in ("-t", f"{topic}:{p}:-1")]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    offsets = [line.rpartition("offset ")[2] for line in answer.stdout.splitlines() if "offset " in line]
    return sum(int(offset) for offset in offsets)


def rows(url: str, table: str) -> int:
    return int(sql.query(url, f"SELECT count() FROM {table}") or 0)


def measure(name: str, messages: int, streamer: Streamer, start: Callable[[], None], arrived: Callable[[], int]) -> None:
    """Runs one load and prints its line."""
    streamer.wait_ready()
    began = time.monotonic()
    start()
    wait(f"{name}: not all messages arrived", lambda: arrived() >= messages)
    seconds = time.monotonic() - began
    # From the start of the process: what a full topic brings while the pipeline gets ready counts too.
    used = streamer.cpu_seconds()
    line = {
        "pipeline": name,
        "messages": messages,
        "arrived": arrived(),
        "cpu_s_per_million": round(used * 1e6 / messages, 2),
        "rss_peak_mib": round(streamer.memory_mib("VmHWM"), 1),
        "messages_per_s": round(messages / seconds),
    }
    streamer.stop()
    print(json.dumps(line), flush=True)


def without_archive(pipeline: Path, folder: Path) -> Path:
    """A copy of a shipped pipeline that archives nothing; its relative paths still lead where they did."""
    kept, inside = [], False
    for line in pipeline.read_text().splitlines(keepends=True):
        inside = line.startswith("archive:") or (inside and (line.startswith(" ") or not line.strip()))
        if not inside:
            kept.append(line)
    if not (folder / "schemas").exists():
        (folder / "schemas").symlink_to(ROOT / "schemas")
    (folder / "pipelines").mkdir(exist_ok=True)
    copy = folder / "pipelines" / pipeline.name
    copy.write_text("".join(kept))
    return copy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streamer", type=Path, required=True, help="the binary, a release build")
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--no-archive", action="store_true", help="the pipelines without their `archive:`")
    parser.add_argument("--no-spool", action="store_true", help="the pipelines with their `spool:` turned off")
    options = parser.parse_args()
    stack = [sys.executable, str(ROOT / "services/stack.py")]
    name = f"bench-{os.getpid()}"
    subprocess.run([*stack, "up", "--name", name, "--ports", "free"], check=True, stdout=sys.stderr)
    try:
        answer = subprocess.run([*stack, "env", "--name", name], check=True, capture_output=True, text=True).stdout
        exported = dict(line.removeprefix("export ").split("=", 1) for line in answer.splitlines())
        with tempfile.TemporaryDirectory() as folder:
            environment = {**os.environ, **exported, **({"SPOOL": "false"} if options.no_spool else {})}
            run(options.streamer, options.messages, environment, Path(folder), not options.no_archive)
    finally:
        subprocess.run([*stack, "down", "--name", name], check=False, stdout=sys.stderr)


def run(binary: Path, messages: int, environment: Dict[str, str], folder: Path, archive: bool) -> None:
    kafka, clickhouse = environment["KAFKA_BOOTSTRAP"], environment["CLICKHOUSE_URL"]
    each = messages // PUBLISHERS
    messages = each * PUBLISHERS

    def publish() -> None:
        files = []
        for number in range(PUBLISHERS):
            file = folder / f"publish-{number}.yaml"
            file.write_text(
                f"name: publish-{number}\n"
                f"inputs:\n  load:\n    generate: {{ count: {each}, payload: {json.dumps(PAYLOAD)} }}\n"
                "outputs:\n  broker:\n    mqtt:\n"
                "      url: mqtt://${MQTT_BROKER}:${MQTT_PORT}\n"
                f"      client_id: bench-{number}\n      topic: devices/phone-{number}/telemetry\n      qos: 1\n"
                "dead_letter:\n  drop: {}\n"
            )
            files.append(file)
        load = [str(binary), "run", "--http", "off", *map(str, files)]
        subprocess.run(load, env={**environment, "STREAMER_LOG": "error"}, check=True)

    def shipped(name: str) -> List[Path]:
        pipeline = ROOT / "pipelines" / f"{name}.yaml"
        return [pipeline if archive else without_archive(pipeline, folder)]

    to_kafka = Streamer(binary, shipped("mqtt-to-kafka"), environment, folder)
    measure("mqtt-to-kafka", messages, to_kafka, publish, lambda: records(kafka, "telemetry"))

    to_table = Streamer(binary, shipped("kafka-to-clickhouse"), environment, folder)
    measure("kafka-to-clickhouse", messages, to_table, lambda: None, lambda: rows(clickhouse, "iot.telemetry"))


if __name__ == "__main__":
    main()
