"""What the services need on this machine: Debian packages, and downloads from package registries.

Everything comes from a package registry through its ordinary client (apt-get, mvn, npm), so a machine behind a
mirror or a proxy needs no setting of ours.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Callable

from .fault import Fault
from .folders import SERVICES, cache_dir, locked, shown

# The program that must be there, and the Debian package that brings it.
BROKER = {"mosquitto": "mosquitto"}
CLIENTS = {"mosquitto_pub": "mosquitto-clients", "kcat": "kcat"}
JAVA = {"java": "openjdk-17-jre-headless"}
MAVEN = {"mvn": "maven"}
NPM = {"npm": "npm"}
PIP = {"pip3": "python3-pip"}

# What building streamer itself needs; the Dockerfile installs the same (tests/compose.rs compares).
BUILD_PACKAGES = ["make", "gcc", "g++", "pkg-config", "libssl-dev", "zlib1g-dev", "cmake"]

# libchdb.so is a whole ClickHouse server in one library. Versions before 26.7 refuse --listen_host.
CHDB_VERSION = "26.7.3-stable.1"
CHDB_PACKAGES = {"x86_64": "@chdb/lib-linux-x64-gnu", "aarch64": "@chdb/lib-linux-arm64-gnu"}

# What tests read archives with, and the S3-compatible store they write to.
PYTHON_PACKAGES = ["pyarrow==21.0.0", "moto[s3]==5.2.5", "flask", "flask-cors"]


def say(text: str) -> None:
    """Tells the user what takes so long; standard output is kept for results."""
    print(text, file=sys.stderr, flush=True)


# Programs and Debian packages


def program(name: str) -> str | None:
    """The path of a program, also from the sbin folders that Debian leaves out of ordinary users' PATH."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin"]))


def missing_packages(programs: dict[str, str]) -> list[str]:
    """The packages of the programs that are not there. A program from elsewhere is as good as Debian's."""
    return [package for name, package in programs.items() if not program(name)]


def missing_build_packages() -> list[str]:
    """Those of BUILD_PACKAGES that are not installed; none on a system other than Debian, whose names we don't know."""
    if not program("dpkg-query"):
        return []
    answer = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *BUILD_PACKAGES],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    installed = {line.split()[0] for line in answer.stdout.splitlines() if line.endswith(" installed")}
    return [package for package in BUILD_PACKAGES if package not in installed]


def needed_for_services() -> list[str]:
    """The packages that are missing to run the services; Maven and npm only while a download is to be made."""
    programs = {**BROKER, **CLIENTS, **JAVA}
    if not _kafka_dir().is_dir():
        programs.update(MAVEN)
    if not _clickhouse_dir().is_dir():
        programs.update(NPM)
    if not _python_dir().is_dir():
        programs.update(PIP)
    return missing_packages(programs)


def install(packages: Iterable[str]) -> None:
    """Installs Debian packages as root; anybody else is told the one command to run."""
    wanted = " ".join(packages)
    if not wanted:
        return
    if not program("apt-get"):
        raise Fault(f"missing programs, and no apt-get to install them: {wanted}")
    if os.geteuid() != 0:
        raise Fault(f"missing packages, run: sudo apt-get install --no-install-recommends {wanted}")
    say(f"installing Debian packages: {wanted}")
    apt = ["apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=120"]
    with locked(cache_dir() / "apt.lock"), _no_services_started():
        _run([*apt, "update"], "apt-get update", "apt")
        _run([*apt, "install", "--no-install-recommends", *wanted.split()], f"apt-get install {wanted}", "apt")


@contextlib.contextmanager
def _no_services_started() -> Iterator[None]:
    """Keeps Debian from starting Mosquitto as a system service on port 1883 when its package is installed.

    /usr/sbin/policy-rc.d is Debian's own switch for that. Where there already is one, it stays in charge.
    """
    policy = Path("/usr/sbin/policy-rc.d")
    if policy.exists():
        yield
        return
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink()


# Downloads


def kafka_jars() -> Path:
    """The folder with Kafka's jars."""

    def fetch(folder: Path) -> None:
        say("downloading Apache Kafka (43 MB, once)")
        shutil.copy(SERVICES / "pom.xml", folder)
        _run(
            [
                _required("mvn", MAVEN),
                "-q",
                "-B",
                "-f",
                str(folder / "pom.xml"),
                "dependency:copy-dependencies",
                f"-DoutputDirectory={folder / 'libs'}",
            ],
            "downloading Apache Kafka with mvn",
            "kafka-download",
        )

    return _cached(_kafka_dir(), fetch) / "libs"


def clickhouse_library() -> Path:
    """The path of libchdb.so."""

    def fetch(folder: Path) -> None:
        say("downloading ClickHouse (about 150 MB, once)")
        package = f"{_chdb_package()}@{CHDB_VERSION}"
        _run(
            [
                _required("npm", NPM),
                "install",
                "--prefix",
                str(folder),
                "--no-save",
                "--no-audit",
                "--no-fund",
                "--ignore-scripts",
                package,
            ],
            f"downloading ClickHouse with npm install {package}",
            "clickhouse-download",
        )

    return _cached(_clickhouse_dir(), fetch) / "node_modules" / _chdb_package() / "libchdb.so"


def python_packages() -> Path:
    """The folder of the Python packages that tests use: give it to a python3 as PYTHONPATH."""

    def fetch(folder: Path) -> None:
        say(f"downloading Python packages: {' '.join(PYTHON_PACKAGES)} (about 80 MB, once)")
        pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--target", str(folder)]
        _run([*pip, *PYTHON_PACKAGES], "downloading Python packages with pip", "python-download")

    return _cached(_python_dir(), fetch)


def _python_dir() -> Path:
    # Named after what is in it, and the Python that it was made for.
    wanted = " ".join([sys.version, *PYTHON_PACKAGES])
    return cache_dir() / f"python-{hashlib.sha256(wanted.encode()).hexdigest()[:8]}"


def _kafka_dir() -> Path:
    # Named after the pom's content: another version or log backend is another folder.
    pom = (SERVICES / "pom.xml").read_bytes()
    version = re.search(rb"<kafka\.version>(.+?)<", pom)
    return cache_dir() / f"kafka-{version[1].decode() if version else ''}-{hashlib.sha256(pom).hexdigest()[:8]}"


def _clickhouse_dir() -> Path:
    return cache_dir() / f"clickhouse-{CHDB_VERSION}"


def _chdb_package() -> str:
    machine = platform.machine()
    if platform.system() != "Linux" or machine not in CHDB_PACKAGES:
        raise Fault(f"no ClickHouse package for {platform.system()} on {machine}: use Docker")
    return CHDB_PACKAGES[machine]


def _cached(target: Path, fetch: Callable[[Path], None]) -> Path:
    """`target`, filled by `fetch` if need be: under a lock, and renamed into place only when complete."""
    if target.is_dir():
        return target
    with locked(target.with_name(target.name + ".lock")):
        if target.is_dir():
            return target
        for leftover in target.parent.glob(target.name + ".partial-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        partial = Path(tempfile.mkdtemp(prefix=target.name + ".partial-", dir=target.parent))
        try:
            fetch(partial)
            partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return target


def _required(name: str, packages: dict[str, str]) -> str:
    path = program(name)
    if not path:
        raise Fault(f"{name} is missing: install the Debian package {packages[name]}")
    return path


def _run(command: list[str], what: str, log_name: str) -> None:
    """Runs an installer with its output in a log file; on failure one line names that file and the cause."""
    log = cache_dir() / f"{log_name}.log"
    with open(log, "w") as output:
        code = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        ).returncode
    if code != 0:
        raise Fault(f"{what} failed: {cause(log.read_text(errors='replace'))} (log: {shown(log)})")


def cause(log: str) -> str:
    """The line of a log that most likely says why, cut to a readable length."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in log.splitlines()]
    lines = [line for line in lines if line]
    chosen = lines[-1] if lines else "no output"
    # apt's own mark; an exception with its message; any other complaint.
    for pattern in (r"^E: ", r"\w(Exception|Error): ", r"(?i)error|fatal|refused"):
        telling = [line for line in lines if re.search(pattern, line)]
        if telling:
            chosen = telling[0]
            break
    return chosen if len(chosen) <= 200 else chosen[:200] + "..."
