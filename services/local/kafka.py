"""Apache Kafka as a plain process: brokers in KRaft mode, on the jars that Maven brings."""

from __future__ import annotations

import string
import subprocess
from collections.abc import Mapping
from pathlib import Path

from . import probe
from .fault import Fault
from .folders import SERVICES
from .install import cause, kafka_jars, program
from .service import Service

# Any fixed id will do: the data folders of a stack are its own.
CLUSTER_ID = "c3RyZWFtZXItc3RhY2stMQ"


def nodes(ports: Mapping[str, int]) -> list[int]:
    """The ids of the brokers that have ports: 1, or 1 to 3."""
    return [node for node in (1, 2, 3) if node == 1 or _name(node) in ports]


def _name(node: int) -> str:
    return "kafka" if node == 1 else f"kafka{node}"


class Kafka(Service):
    """A Kafka broker, which is a controller as well."""

    def __init__(self, folder: Path, ports: Mapping[str, int], node: int) -> None:
        self.name = _name(node)
        self.node = node
        super().__init__(folder, ports)

    def prepare(self) -> None:
        template = string.Template((SERVICES / "kafka.properties").read_text())
        config = self.folder / "config"
        config.write_text(
            template.substitute(
                KAFKA_PORT=self.all_ports[self.name],
                CONTROLLER_PORT=self.all_ports[f"{self.name}_controller"],
                DATA=self.data,
            )
            + self._as_one_of_many()
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

    def _as_one_of_many(self) -> str:
        """Settings that take the place of those before them when there are more brokers than one."""
        others = nodes(self.all_ports)
        if len(others) == 1:
            return ""
        voters = [f"{node}@127.0.0.1:{self.all_ports[f'{_name(node)}_controller']}" for node in others]
        settings = {
            "node.id": self.node,
            "controller.quorum.voters": ",".join(voters),
            # Any one of them may be away.
            "default.replication.factor": len(others),
            "min.insync.replicas": len(others) - 1,
            "offsets.topic.replication.factor": len(others),
            "transaction.state.log.replication.factor": len(others),
            "transaction.state.log.min.isr": len(others) - 1,
            "share.coordinator.state.topic.replication.factor": len(others),
            "share.coordinator.state.topic.min.isr": len(others) - 1,
            # Whoever comes back soon leads its partitions again.
            "leader.imbalance.check.interval.seconds": 2,
            "leader.imbalance.per.broker.percentage": 0,
        }
        return "".join(f"\n{name}={value}" for name, value in settings.items()) + "\n"

    def argv(self) -> list[str]:
        # The first compiler tier and the serial collector: quick to start and small, and fast enough for tests.
        memory = ["-Xmx512m", "-Xms256m"] if len(nodes(self.all_ports)) == 1 else ["-Xmx256m"]
        return [*self._java(), *memory, "kafka.Kafka", str(self.folder / "config")]

    def worth_retrying(self, log: str) -> bool:
        # On a busy machine the JVM has died without a word a few times, and started well right after.
        return not log.strip()

    def ready(self) -> bool:
        return probe.kafka(self.all_ports[self.name])

    def _java(self) -> list[str]:
        return [
            program("java") or "java",
            "-XX:TieredStopAtLevel=1",
            "-XX:+UseSerialGC",
            f"-Dlog4j2.configurationFile={SERVICES / 'log4j2.properties'}",
            "-cp",
            f"{kafka_jars()}/*",
        ]
