#!/usr/bin/env python3
"""Shows streamer at work: simulated phones publish over MQTT, their messages become rows in ClickHouse.

Starts a stack of its own, runs both pipelines, publishes good and bad messages, and checks that every good one is
exactly one row and every bad one a dead letter. Exit code 0 if so, 1 if not, 2 when something could not run.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
import urllib.error
from pathlib import Path

import stack as stack_command
from local import install, observer, sql
from local.fault import Fault
from local.folders import ROOT, shown
from local.phones import Ledger, Phone
from local.ports import free
from local.probe import open_local
from local.stack import Stack

PIPELINES = ["pipelines/mqtt-to-kafka.yaml", "pipelines/kafka-to-clickhouse.yaml"]
TOPIC, DEAD_LETTERS = "telemetry", "telemetry.dead-letter"
READY_SECONDS = 60.0
ARRIVE_SECONDS = 60.0
STOP_SECONDS = 30.0


class Streamer:
    """The program under demonstration."""

    def __init__(self, binary: Path, stack: Stack) -> None:
        port = free(stack.ports().values())
        self.page = f"http://127.0.0.1:{port}"
        self.log = stack.folder / "streamer.log"
        state = stack.folder / "streamer"
        # The caller's own settings for streamer must not leak in; what is not set here has its default.
        names = ("MQTT_", "KAFKA_", "CLICKHOUSE_", "STREAMER_", "DEAD_LETTER_", "ARCHIVE_", "STATE_")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(names)}
        environment.update(stack.environment())
        environment.update(
            {
                "MQTT_CLIENT_ID": "streamer-demo",
                "KAFKA_TOPIC": TOPIC,
                "DEAD_LETTER_TOPIC": DEAD_LETTERS,
                "KAFKA_SESSION_TIMEOUT_MS": "10000",
                "CLICKHOUSE_USER": "default",
                "CLICKHOUSE_PASSWORD": "",
                "STATE_DIR": str(state / "state"),
                "ARCHIVE_DIR": str(state / "archive"),
                "STREAMER_HTTP": self.page.partition("//")[2],
            }
        )
        state.mkdir(exist_ok=True)
        with open(self.log, "wb") as output:
            try:
                self.process = subprocess.Popen(
                    [str(binary), "run", *PIPELINES],
                    cwd=ROOT,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise Fault(f"cannot start {binary}: {error.strerror}") from error

    def wait_ready(self) -> None:
        """Waits until it says that it is connected to everything."""
        deadline = time.monotonic() + READY_SECONDS
        answer = "no answer"
        while time.monotonic() < deadline:
            self.check()
            try:
                with open_local(f"{self.page}/health/ready", timeout=2) as reply:
                    if reply.status == 200:
                        return
            except urllib.error.HTTPError as error:
                answer = error.read().decode(errors="replace").strip()[:300]
            except OSError:
                pass
            time.sleep(0.1)
        raise Fault(f"streamer was not ready after {READY_SECONDS:.0f} s: {answer} (log: {shown(self.log)})")

    def counts(self) -> list[str]:
        """What it says itself about the messages, without zeros: tells on which side of it one was lost."""
        wanted = ("received_messages", "filtered_messages", "delivered_messages", "rejected_messages", "retries")
        wanted += ("dead_lettered_messages", "in_flight_messages", "reconnects", "broker_dropped_messages")
        try:
            with open_local(f"{self.page}/metrics", timeout=5) as reply:
                lines = reply.read().decode(errors="replace").splitlines()
        except OSError as error:
            return [f"{self.page}/metrics does not answer: {error}"]
        starts = tuple(f"streamer_{name}" for name in wanted)
        return [line for line in lines if line.startswith(starts) and not line.endswith(" 0")]

    def check(self) -> None:
        """Raises a fault when it has ended."""
        code = self.process.poll()
        if code is not None:
            why = install.cause(self.log.read_text(errors="replace"))
            raise Fault(f"streamer ended with code {code}: {why} (log: {shown(self.log)})")

    def stop(self) -> int:
        """Asks it to end and returns its exit code; one that does not end is killed."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


class Progress:
    """One line that is drawn over and over on a terminal; elsewhere a plain line now and then."""

    def __init__(self) -> None:
        self.terminal = sys.stdout.isatty()
        self.next = 0.0

    def show(self, text: str) -> None:
        """Shows the state of things, not too often."""
        now = time.monotonic()
        if now >= self.next:
            self.next = now + (0.2 if self.terminal else 5)
            print(f"\r\x1b[K{text}" if self.terminal else text, end="" if self.terminal else "\n", flush=True)

    def clear(self) -> None:
        """Makes room for other lines."""
        if self.terminal:
            print("\r\x1b[K", end="", flush=True)


def publish_and_wait(
    stack: Stack, streamer: Streamer, options: argparse.Namespace, ledger: Ledger
) -> observer.RowWatcher:
    """Lets the phones publish, and returns when everything has arrived or time is up."""
    environment = stack.environment()
    url, bootstrap = environment["CLICKHOUSE_URL"], environment["KAFKA_BOOTSTRAP"]
    watcher = observer.RowWatcher(url, ledger)
    watcher.start()
    phones = [
        Phone(number + 1, stack.ports()["mqtt"], options.seconds, options.rate, ledger)
        for number in range(options.phones)
    ]
    progress = Progress()
    began = time.monotonic()
    for phone in phones:
        phone.start()
    while any(phone.is_alive() for phone in phones):
        streamer.check()
        progress.show(
            f"publishing, {time.monotonic() - began:.0f} of {options.seconds:g} s: "
            f"{ledger.total} messages sent, {watcher.arrived()} seen as rows"
        )
        time.sleep(0.1)
    deadline = time.monotonic() + ARRIVE_SECONDS
    while time.monotonic() < deadline and not watcher.fault:
        streamer.check()
        rows = watcher.arrived() + observer.rows_of_unknown(url)
        letters = len(observer.values(bootstrap, DEAD_LETTERS))
        progress.show(f"waiting for the rest: {rows} of {ledger.rows} rows, {letters} of {ledger.bad} dead letters")
        if rows >= ledger.rows and letters >= ledger.bad:
            break
        time.sleep(0.2)
    # What came twice may come a little later.
    time.sleep(1)
    watcher.finish()
    progress.clear()
    return watcher


def verdict(stack: Stack, ledger: Ledger, watcher: observer.RowWatcher) -> list[str]:
    """Prints what became of the messages; returns what is wrong with it."""
    environment = stack.environment()
    url, bootstrap = environment["CLICKHOUSE_URL"], environment["KAFKA_BOOTSTRAP"]
    found = observer.rows(url)
    texts = observer.rows_of_unknown(url)
    forwarded = len(observer.values(bootstrap, TOPIC))
    letters = observer.values(bootstrap, DEAD_LETTERS)
    missing = [one for one in ledger.good if one not in found]
    unexpected = [one for one in found if one not in ledger.good]
    doubled = {one: count for one, count in found.items() if count > 1}
    duplicates = sum(doubled.values()) - len(doubled)
    odd = ", ".join(f"{count} {kind}" for kind, count in sorted(ledger.odd.items()))

    def line(name: str, number: int, remark: str) -> None:
        print(f"{name:<16}{number:>9}   {remark}")

    print()
    line("published", ledger.total, f"{ledger.rows} good, {ledger.bad} bad; among them {odd or 'nothing odd'}")
    line("in Kafka", forwarded, f"in the topic {TOPIC}; {ledger.through_kafka} expected")
    line("ClickHouse rows", sum(found.values()) + texts, f"{ledger.rows} expected, {texts} of them from plain text")
    line("dead letters", len(letters), f"{ledger.bad} expected; {observer.by_pipeline(letters) or 'none'}")
    line("missing", len(missing), "good messages without a row")
    line("duplicates", duplicates, "rows too many")
    print(f"publish to row  {latency(watcher)}")
    print(f"\nlast rows\n{observer.last_rows(url)}\n")

    wrong = list(ledger.faults)
    if watcher.fault:
        wrong.append(watcher.fault)
    for what, ones in [
        ("without a row", missing),
        ("with more than one row", list(doubled)),
        ("with a row that was not to be", unexpected),
    ]:
        if ones:
            wrong.append(f"messages {what}: {len(ones)} ({some(ones)})")
    for what, actual, expected in [
        ("rows from plain text", texts, ledger.texts),
        ("dead letters", len(letters), ledger.bad),
        ("messages in Kafka", forwarded, ledger.through_kafka),
    ]:
        if actual != expected:
            wrong.append(f"{what}: {actual} instead of {expected}")
    return wrong


def latency(watcher: observer.RowWatcher) -> str:
    """The median and the slowest hundredth."""
    all_of_them = watcher.latencies()
    if not all_of_them:
        return "no row was seen"
    p50, p99 = (all_of_them[int(len(all_of_them) * part)] for part in (0.5, 0.99))
    return f"p50 {p50:.2f} s, p99 {p99:.2f} s (asked every {observer.POLL_SECONDS:g} s)"


def some(ones: list[observer.Key]) -> str:
    """A few messages by device and latitude, enough to search for."""
    shown_ones = [f"{device} at {millionths / 1e6:.6f}" for device, millionths in sorted(ones)[:5]]
    return ", ".join(shown_ones) + (", ..." if len(ones) > len(shown_ones) else "")


def demonstrate(stack: Stack, options: argparse.Namespace) -> list[str]:
    """The demo between `up` and `down`; returns what went wrong."""
    for statement in sql.statements((ROOT / "schemas" / "telemetry.sql").read_text()):
        sql.query(stack.environment()["CLICKHOUSE_URL"], statement)
    began = time.monotonic()
    streamer = Streamer(options.streamer.absolute(), stack)
    try:
        streamer.wait_ready()
        print(f"streamer is ready after {time.monotonic() - began:.1f} s, its page is {streamer.page}")
        ledger = Ledger()
        watcher = publish_and_wait(stack, streamer, options, ledger)
        wrong = verdict(stack, ledger, watcher)
        if wrong:
            print("streamer's own counts (all others are 0)", *streamer.counts(), sep="\n", end="\n\n")
    finally:
        code = streamer.stop()
    if code != 0:
        wrong.append(f"streamer ended with code {code} on SIGTERM, not 0 (log: {shown(streamer.log)})")
    return wrong


def run(options: argparse.Namespace) -> int:
    """Brings the stack up, demonstrates, and takes it down; keeps its logs and data when something was wrong."""
    if not options.streamer.is_file():
        raise Fault(f"no program at {options.streamer}: build it first")
    for pipeline in PIPELINES:
        if not (ROOT / pipeline).is_file():
            raise Fault(f"{pipeline} is not there")
    install.install(install.missing_packages(install.CLIENTS))
    stack = stack_command.open_stack("demo", options.engine, starting=True)
    with stack.lock():
        wrong: list[str] | None = None
        stack.down(keep=False)  # what an interrupted demo left behind
        try:
            stack.up(free_ports=True)
            print(f"Mosquitto, Kafka and ClickHouse are ready ({stack.engine})")
            wrong = demonstrate(stack, options)
        finally:
            stack.down(keep=wrong != [])
    for problem in wrong:
        print(f"WRONG: {problem}")
    if wrong:
        print(f"logs and data are kept in {shown(stack.folder)}")
        return 1
    print("every good message is exactly one row, every bad one a dead letter")
    return 0


def main() -> int:
    """The command line."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # clean up then, too
    parser = argparse.ArgumentParser(prog="demo.py", description=__doc__)
    parser.add_argument("--streamer", type=Path, required=True, help="the built program")
    parser.add_argument("--seconds", type=float, default=15, help="how long the phones publish (default: 15)")
    parser.add_argument("--phones", type=int, default=20, help="how many phones there are (default: 20)")
    parser.add_argument("--rate", type=float, default=10, help="messages a second of each phone (default: 10)")
    parser.add_argument("--engine", choices=["auto", "docker", "native"], default="auto")
    try:
        return run(parser.parse_args())
    except (Fault, OSError) as error:
        print(f"demo.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
