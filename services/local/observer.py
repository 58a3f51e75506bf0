"""Watches where the demo's messages end: rows in ClickHouse, messages in Kafka topics."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections import Counter

from .fault import Fault
from .install import cause, program
from .phones import Key, Ledger, key
from .sql import query

TABLE = "iot.telemetry"
POLL_SECONDS = 0.1


class RowWatcher(threading.Thread):
    """Asks ClickHouse ten times a second which messages have become rows, and notes when each was first seen."""

    def __init__(self, url: str, ledger: Ledger) -> None:
        super().__init__(name="row watcher", daemon=True)
        self.url = url
        self.ledger = ledger
        self.seen: dict[Key, float] = {}
        self.fault: str | None = None
        self._end = threading.Event()

    def run(self) -> None:
        try:
            while not self._end.wait(POLL_SECONDS):
                self._poll()
        except Fault as fault:
            self.fault = str(fault)

    def finish(self) -> None:
        """Stops asking."""
        self._end.set()
        self.join()

    def arrived(self) -> int:
        """How many good messages have become rows."""
        return len(self.latencies())

    def latencies(self) -> list[float]:
        """Seconds from publishing to being seen as a row, in ascending order."""
        return sorted(when - self.ledger.good[one] for one, when in self.seen.items() if one in self.ledger.good)

    def _poll(self) -> None:
        # Only as far back as the oldest message that is still on its way.
        waiting = [sent for one, sent in list(self.ledger.good.items()) if one not in self.seen]
        if not waiting:
            return
        rows = query(self.url, f"SELECT device_id, lat FROM {TABLE} WHERE ts >= {int(min(waiting)) - 1}")
        now = time.time()
        for one in _keys(rows):
            self.seen.setdefault(one, now)


def rows(url: str) -> Counter[Key]:
    """How many rows each message has in the table."""
    return Counter(_keys(query(url, f"SELECT device_id, lat FROM {TABLE} WHERE device_id != 'unknown'")))


def rows_of_unknown(url: str) -> int:
    """Rows made from text that is not JSON."""
    return int(query(url, f"SELECT count() FROM {TABLE} WHERE device_id = 'unknown'"))


def last_rows(url: str) -> str:
    """The newest row of some phones, as a table."""
    return query(
        url,
        f"SELECT device_id, toDateTime(ts) AS time, lat, lon, battery, accel.x, accel.y, accel.z, topic "
        f"FROM {TABLE} WHERE device_id != 'unknown' ORDER BY ts DESC, lat DESC "
        f"LIMIT 1 BY device_id LIMIT 5",
        "PrettyCompactMonoBlock",
    ).rstrip("\n")


def values(bootstrap: str, topic: str) -> list[str]:
    """All messages of a Kafka topic; none when there is no such topic."""
    done = subprocess.run(
        [program("kcat") or "kcat", "-C", "-b", bootstrap, "-t", topic, "-o", "beginning", "-e", "-q", "-f", "%s\n"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )
    if done.returncode != 0:
        errors = done.stderr.decode(errors="replace")
        if "Unknown topic" in errors:
            return []
        raise Fault(f"kcat cannot read the topic {topic}: {cause(errors)}")
    # Not splitlines(): JSON may hold other characters that Python takes for the end of a line.
    return done.stdout.decode(errors="replace").split("\n")[:-1]


def by_pipeline(dead_letters: list[str]) -> str:
    """Says how many dead letters each pipeline wrote, as far as the letters tell."""
    counts: Counter[str] = Counter()
    for letter in dead_letters:
        try:
            counts[str(json.loads(letter)["pipeline"])] += 1
        except (ValueError, KeyError, TypeError):
            counts["?"] += 1
    return ", ".join(f"{count} from {pipeline}" for pipeline, count in sorted(counts.items()))


def _keys(answer: str) -> list[Key]:
    pairs = (line.split("\t") for line in answer.splitlines())
    return [key(device, float(latitude)) for device, latitude in pairs]
