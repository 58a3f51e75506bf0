"""Which TCP ports a stack uses."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .fault import Fault


@dataclass(frozen=True)
class Port:
    """One port of a service: the variable that sets it, and the number everyone knows it by."""

    service: str
    variable: str
    well_known: int


PORTS: Mapping[str, Port] = {
    "mqtt": Port("mosquitto", "STREAMER_MQTT_PORT", 1883),
    "mqtt_ws": Port("mosquitto", "STREAMER_MQTT_WS_PORT", 9001),
    "kafka": Port("kafka", "STREAMER_KAFKA_PORT", 9092),
    "kafka_controller": Port("kafka", "STREAMER_KAFKA_CONTROLLER_PORT", 9093),
    "clickhouse_http": Port("clickhouse", "STREAMER_CLICKHOUSE_HTTP_PORT", 8123),
    "clickhouse_tcp": Port("clickhouse", "STREAMER_CLICKHOUSE_TCP_PORT", 9000),
}

# What a stack may have besides, with `up --brokers 3`.
MORE_BROKERS: Mapping[str, Port] = {
    f"kafka{node}{role}": Port(f"kafka{node}", f"STREAMER_KAFKA{node}{role.upper()}_PORT", 9091 + 2 * node + number)
    for node in (2, 3)
    for number, role in enumerate(("", "_controller"))
}
ALL_PORTS: Mapping[str, Port] = {**PORTS, **MORE_BROKERS}

# Free ports come from below the range that the kernel takes outgoing connections from (32768 and up). A port
# from that range can be taken by anybody's connection while its service is down, and a client that keeps
# reconnecting to it can even end up connected to itself.
FREE_RANGE = range(20000, 30000)


def choose(
    ports: Mapping[str, Port],
    well_known: bool,
    use_environment: bool,
    recorded: Mapping[str, int],
    avoid: Iterable[int],
) -> dict[str, int]:
    """Picks `ports`: from the environment if allowed, as `recorded` before, well known, or free.

    `avoid` are ports of other stacks, which may be down just now.
    """
    chosen: dict[str, int] = {}
    for key, port in ports.items():
        number = _from_environment(port.variable) if use_environment else None
        if number is None:
            number = recorded.get(key)
        if number is None and well_known:
            number = port.well_known
        if number is not None:
            chosen[key] = number
    for key in ports:
        if key not in chosen:
            chosen[key] = free(set(avoid) | set(chosen.values()))
    for key, number in chosen.items():
        others = [other for other in chosen if other != key and chosen[other] == number]
        if others:
            raise Fault(f"{ports[key].variable} and {ports[others[0]].variable} are both {number}")
    return chosen


def free(avoid: Iterable[int] = ()) -> int:
    """A port that nobody listens on now."""
    taken_by_others = set(avoid)
    for _ in range(200):
        number = random.choice(FREE_RANGE)
        if number not in taken_by_others and not taken(number):
            return number
    raise Fault(f"found no free port between {FREE_RANGE.start} and {FREE_RANGE.stop}")


def taken(number: int) -> bool:
    """True when the port cannot be listened on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections in TIME_WAIT do not count
        try:
            probe.bind(("127.0.0.1", number))
        except OSError:
            return True
    return False


def require_free(key: str, number: int) -> None:
    """Raises a fault that says what to do when the port is taken."""
    if taken(number):
        port = ALL_PORTS[key]
        raise Fault(
            f"port {number} for {port.service} is taken by another program: stop that, set {port.variable}, "
            f"or use --ports free"
        )


def _from_environment(variable: str) -> int | None:
    text = os.environ.get(variable)
    if not text:
        return None
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise Fault(f"{variable} is `{text}`, not a port number (1 to 65535)")
    return int(text)
