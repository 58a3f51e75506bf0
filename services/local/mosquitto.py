"""Mosquitto as a plain process, on Debian's program and services/mosquitto.conf."""

from __future__ import annotations

import getpass
import os

from . import probe
from .fault import Fault
from .folders import SERVICES
from .install import program
from .service import Service


class Mosquitto(Service):
    """The MQTT broker."""

    name = "mosquitto"

    def prepare(self) -> None:
        text = (SERVICES / "mosquitto.conf").read_text()
        # It asks nobody for a password; 0.0.0.0 lets real phones in the local network reach it all the same.
        # Debian's 2.0.11 ignores the address of a websockets listener and opens that on every address anyway.
        address = os.environ.get("STREAMER_MQTT_ADDRESS") or "127.0.0.1"
        changes = {
            "listener 1883": f"listener {self.all_ports['mqtt']} {address}",
            "listener 9001": f"listener {self.all_ports['mqtt_ws']} {address}",
            "persistence_location /mosquitto/data/": f"persistence_location {self.data}/",
        }
        maximum = os.environ.get("STREAMER_MQTT_MAX_QUEUED")
        if maximum:
            if not maximum.isdecimal():
                raise Fault(f"STREAMER_MQTT_MAX_QUEUED is `{maximum}`, not a number")
            changes["max_queued_messages 100000"] = f"max_queued_messages {maximum}"
        lines = text.splitlines()
        for old, new in changes.items():
            lines[lines.index(old)] = new
        # Started as root, Mosquitto would become the user `mosquitto`, who may not write to our folders.
        lines.append(f"user {getpass.getuser()}")
        (self.folder / "config").write_text("\n".join(lines) + "\n")

    def argv(self) -> list[str]:
        return [program("mosquitto") or "mosquitto", "-c", str(self.folder / "config")]

    def ready(self) -> bool:
        return probe.mqtt(self.all_ports["mqtt"]) and probe.listening(self.all_ports["mqtt_ws"])
