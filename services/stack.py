#!/usr/bin/env python3
"""Starts and stops the services that streamer works with: Mosquitto, Kafka and ClickHouse.

With Docker where an engine answers, otherwise as plain processes. See services/README.md.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from pathlib import Path

from local import docker, install, native, sql
from local.fault import Fault
from local.folders import shown
from local.stack import MORE_BROKERS, SERVICES, Stack, read_record

ENGINES = {"native": native.NativeStack, "docker": docker.DockerStack}


def open_stack(name: str, engine: str, starting: bool) -> Stack:
    """The stack `name`. One that is up stays on its engine; a new one may get Docker, if that works here."""
    recorded = read_record(name).get("engine")
    if recorded and engine not in ("auto", recorded):
        raise Fault(f"the stack `{name}` is up with --engine {recorded}: take it down first")
    if recorded:
        return ENGINES[recorded](name)
    if not starting or engine == "native":
        return native.NativeStack(name)
    if docker.usable():
        return docker.DockerStack(name)
    if engine == "docker":
        raise Fault("no Docker engine with Compose answers, or it has no images: see `docker info`")
    return native.NativeStack(name)


def setup(engine: str) -> None:
    """Makes sure that `up` and a build find all they need. Docker has its own programs and downloads."""
    if engine == "docker" or (engine == "auto" and docker.usable()):
        programs = {**install.CLIENTS, **install.PIP}
        install.install(install.missing_packages(programs) + install.missing_build_packages())
        install.python_packages()
    else:
        native.ensure(build=True)
    print("everything is there: what the services need, and the packages for building streamer")


def up(stack: Stack, free_ports: bool, brokers: int) -> None:
    """Starts the stack and says how long it took."""
    began = time.monotonic()
    with stack.lock():
        stack.up(free_ports, brokers)
    print(f"stack `{stack.name}` ({stack.engine}) is ready after {time.monotonic() - began:.1f} s")
    print_status(stack)


def print_status(stack: Stack) -> bool:
    """Prints a table; True when everything runs."""
    rows = stack.status()
    for row in rows:
        print(f"{row.service:<11} {row.state:<8} pid {row.pid:<8} {row.ports}".rstrip())
    return all(row.state == "running" for row in rows)


def act(stack: Stack, verb: str, service: str) -> None:
    """Does `verb` on one service; `restart` is a stop and a start."""
    with stack.lock():
        for step in ("stop", "start") if verb == "restart" else (verb,):
            stack.act(step, service)


def run_sql(stack: Stack, file: Path) -> None:
    """Runs a file's statements one after the other and prints what they answer."""
    try:
        script = file.read_text()
    except OSError as error:
        raise Fault(f"cannot read {file}: {error.strerror}") from error
    for statement in sql.statements(script):
        answer = sql.query(stack.environment()["CLICKHOUSE_URL"], statement, "PrettyCompactMonoBlock")
        if answer:
            print(answer.rstrip("\n"))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--name",
        default=os.environ.get("STREAMER_STACK") or "dev",
        help="which stack (default: $STREAMER_STACK, or dev)",
    )
    common.add_argument(
        "--engine",
        choices=["auto", "docker", "native"],
        default="auto",
        help="auto: Docker when an engine answers, else plain processes",
    )
    parser = argparse.ArgumentParser(prog="stack.py", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    command = commands.add_parser("up", parents=[common], help="start all three and wait until they are ready")
    command.add_argument(
        "--ports",
        choices=["default", "free"],
        default="default",
        help="default: $STREAMER_*_PORT, then the well-known ports for the stack `dev` and free ones "
        "for others; free: free ones, whatever the environment says",
    )
    command.add_argument(
        "--brokers",
        type=int,
        choices=[1, 3],
        default=1,
        help="how many Kafka brokers (default: 1); 3 keep three copies of all, and any one may be away",
    )
    command = commands.add_parser("down", parents=[common], help="stop all three and remove their data")
    command.add_argument("--keep", action="store_true", help="keep the data and ports for the next `up`")
    commands.add_parser("status", parents=[common], help="show what runs; exit code 1 unless all three do")
    commands.add_parser("env", parents=[common], help='print variables, for eval "$(services/stack.py env)"')
    command = commands.add_parser("logs", parents=[common], help="show the last lines of the logs")
    command.add_argument("service", nargs="?", choices=[*SERVICES, *MORE_BROKERS])
    command.add_argument("--lines", type=int, default=40)
    command = commands.add_parser(
        "sql", parents=[common], help="run the statements of a file in ClickHouse, show the answers"
    )
    command.add_argument("file", type=Path, help="schemas/telemetry.sql, for example")
    for verb, text in [
        ("start", "start one service on its data and ports, and wait until it is ready"),
        ("stop", "stop one service in the ordinary way"),
        ("restart", "stop, then start"),
        ("kill", "kill -9 one service"),
        ("pause", "freeze one service (SIGSTOP)"),
        ("resume", "let a paused service go on"),
    ]:
        commands.add_parser(verb, parents=[common], help=text).add_argument(
            "service", choices=[*SERVICES, *MORE_BROKERS]
        )
    command = commands.add_parser("setup", help="only install and download what the services and the Rust build need")
    command.add_argument("--engine", choices=[*ENGINES, "auto"], default="auto")
    commands.add_parser("python", help="print the folder of the Python packages that tests use, a PYTHONPATH")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> int:
    """Carries out one command; returns the exit code."""
    if options.command == "setup":
        setup(options.engine)
        return 0
    if options.command == "python":
        print(install.python_packages())
        return 0
    stack = open_stack(options.name, options.engine, starting=options.command == "up")
    if options.command == "up":
        up(stack, options.ports == "free", options.brokers)
    elif options.command == "down":
        with stack.lock():
            stack.down(options.keep)
        print(f"stack `{stack.name}` is down" + (f", its data is in {shown(stack.folder)}" if options.keep else ""))
    elif options.command == "status":
        stack.ports()  # a fault when it is not up
        return 0 if print_status(stack) else 1
    elif options.command == "env":
        for variable, value in stack.environment().items():
            print(f"export {variable}={shlex.quote(value)}")
    elif options.command == "logs":
        for service in [options.service] if options.service else SERVICES:
            print(f"==> {service}\n{stack.log(service, options.lines)}")
    elif options.command == "sql":
        run_sql(stack, options.file)
    else:
        act(stack, options.command, options.service)
        print_status(stack)
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Exit codes: 0 done, 1 not all running (`status`), 2 could not."""
    try:
        return run(parse(arguments))
    except BrokenPipeError:
        # Whoever read our output has gone, `head` for example; spare Python's complaint at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (Fault, OSError) as error:
        print(f"stack.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
