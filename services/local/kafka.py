"""Apache Kafka as a plain process: one broker in KRaft mode, on the jars that Maven brings."""

from __future__ import annotations

import string
import subprocess

from . import probe
from .fault import Fault
from .folders import SERVICES
from .install import cause, kafka_jars, program
from .service import Service

# Any fixed id will do: a stack is one broker with a data folder of its own.
CLUSTER_ID = "c3RyZWFtZXItc3RhY2stMQ"


class Kafka(Service):
    """The Kafka broker."""

    name = "kafka"

    def prepare(self) -> None:
        template = string.Template((SERVICES / "kafka.properties").read_text())
        config = self.folder / "config"
        config.write_text(
            template.substitute(
                KAFKA_PORT=self.all_ports["kafka"], CONTROLLER_PORT=self.all_ports["kafka_controller"], DATA=self.data
            )
        )
        if not (self.data / "meta.properties").exists():
            done = subprocess.run(
                [*self._java(), "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            if done.returncode != 0:
                raise Fault(f"kafka cannot format its data folder: {cause(done.stdout)}")

    def argv(self) -> list[str]:
        # The first compiler tier and the serial collector: quick to start and small, and fast enough for tests.
        return [*self._java(), "-Xmx512m", "-Xms256m", "kafka.Kafka", str(self.folder / "config")]

    def worth_retrying(self, log: str) -> bool:
        # On a busy machine the JVM has died without a word a few times, and started well right after.
        return not log.strip()

    def ready(self) -> bool:
        return probe.kafka(self.all_ports["kafka"])

    def _java(self) -> list[str]:
        return [
            program("java") or "java",
            "-XX:TieredStopAtLevel=1",
            "-XX:+UseSerialGC",
            f"-Dlog4j2.configurationFile={SERVICES / 'log4j2.properties'}",
            "-cp",
            f"{kafka_jars()}/*",
        ]
