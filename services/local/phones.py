"""Simulated phones that publish telemetry, and the ledger of what they have sent.

To tell afterwards exactly which message became which row, every message must be recognisable in the table. The
columns leave little room for a number, so the position carries it: each phone walks north from a place of its
own, a millionth of a degree (11 cm) for each message. Device and latitude together name one message.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections import Counter

from .mqtt import MqttError, Publisher

# A device and its latitude in millionths of a degree.
Key = tuple[str, int]

# Every so many messages of a phone one is of an odd kind, each kind in its turn.
ODD_EVERY = 30
NOT_UTF8, BATTERY_300, BATTERY_TEXT, PLAIN_TEXT = "not UTF-8", "battery 300", 'battery "abc"', "plain text"
ODD_KINDS = (NOT_UTF8, BATTERY_300, BATTERY_TEXT, PLAIN_TEXT)


class Ledger:
    """What was published, and acknowledged by the broker. Filled by many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.good: dict[Key, float] = {}  # when it was sent
        self.odd: Counter[str] = Counter()
        self.faults: list[str] = []

    def add_good(self, key: Key, sent: float) -> None:
        """A message that must become one row with its key."""
        with self._lock:
            self.good[key] = sent

    def add_odd(self, kind: str) -> None:
        """A message of one of the `ODD_KINDS`."""
        with self._lock:
            self.odd[kind] += 1

    @property
    def texts(self) -> int:
        """Messages that are text, not JSON: good ones, which become rows of the device `unknown`."""
        return self.odd[PLAIN_TEXT]

    @property
    def bad(self) -> int:
        """Messages that must become dead letters."""
        return sum(self.odd.values()) - self.texts

    @property
    def rows(self) -> int:
        """Rows that the table must have in the end."""
        return len(self.good) + self.texts

    @property
    def total(self) -> int:
        """All messages."""
        return len(self.good) + sum(self.odd.values())

    @property
    def through_kafka(self) -> int:
        """Messages that must be in the Kafka topic: what is not UTF-8 does not get that far."""
        return self.total - self.odd[NOT_UTF8]


class Phone(threading.Thread):
    """One phone: `rate` messages a second for `seconds`, with QoS 1, each waited for."""

    def __init__(self, number: int, port: int, seconds: float, rate: float, ledger: Ledger) -> None:
        self.device = f"phone-{number:03}"
        super().__init__(name=self.device, daemon=True)
        self.number = number
        self.port = port
        self.count = int(seconds * rate)
        self.rate = rate
        self.ledger = ledger

    def run(self) -> None:
        try:
            publisher = Publisher("127.0.0.1", self.port, f"demo-{self.device}")
            # Phones are not in step.
            start = time.time() + (self.number * 0.618 % 1) / self.rate
            for sequence in range(self.count):
                time.sleep(max(0.0, start + sequence / self.rate - time.time()))
                self._publish_one(publisher, sequence)
            publisher.close()
        except (OSError, MqttError) as error:
            self.ledger.faults.append(f"{self.device} could not publish: {error}")

    def _publish_one(self, publisher: Publisher, sequence: int) -> None:
        topic = f"devices/{self.device}/telemetry"
        sent = time.time()
        reading = self._reading(sequence, sent)
        if sequence % ODD_EVERY == ODD_EVERY - 1:
            kind = ODD_KINDS[(self.number + sequence // ODD_EVERY) % len(ODD_KINDS)]
            publisher.publish(topic, _odd(kind, reading))
            self.ledger.add_odd(kind)
        else:
            publisher.publish(topic, json.dumps(reading).encode())
            self.ledger.add_good(key(self.device, reading["lat"]), sent)

    def _reading(self, sequence: int, sent: float) -> dict:
        swing = math.sin(sequence / 5 + self.number)
        return {
            "device_id": self.device,
            "ts": int(sent),
            "lat": round(46 + self.number * 0.05 + sequence / 1e6, 6),
            "lon": round(7.4 + self.number * 0.01, 6),
            "battery": max(5, 95 - self.number % 40 - sequence // 200),
            "accel": {
                "x": round(0.4 * swing, 3),
                "y": round(0.2 * swing * swing, 3),
                "z": round(9.81 + 0.3 * swing, 3),
            },
        }


def key(device: str, latitude: float) -> Key:
    """Names one message, from its fields or from its row."""
    return device, round(latitude * 1e6)


def _odd(kind: str, reading: dict) -> bytes:
    if kind == NOT_UTF8:
        return b"\xff\xfe" + json.dumps(reading).encode()
    if kind == PLAIN_TEXT:
        return f"{reading['device_id']} restarting".encode()
    return json.dumps({**reading, "battery": 300 if kind == BATTERY_300 else "abc"}).encode()
