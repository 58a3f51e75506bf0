#!/usr/bin/env python3
"""Runs the fault battery in full, one scenario after the other, and shows what became of every message.

Called by `make faults`. Arguments go to the tests: `services/faults.py kills::` runs the scenarios of one module. The
lines of the report are kept; exit code 1 when a scenario broke its promise or a test failed.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STACK = [sys.executable, str(ROOT / "services/stack.py")]
COLUMNS = {
    "scenario": "scenario",
    "way": "way",
    "faults": "faults",
    "sent": "sent",
    "lost": "lost",
    "duplicated": "duplicated",
    "out_of_order": "out of order",
    "dead_lettered": "dead letters",
    "seconds": "s",
    "kept": "promise",
}


def table(lines: list[dict]) -> str:
    """The lines as a Markdown table."""

    def cell(line: dict, column: str) -> str:
        value = line[column]
        if column == "kept":
            return "kept" if value else "BROKEN"
        return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)

    rows = [list(COLUMNS.values())] + [[cell(line, column) for column in COLUMNS] for line in lines]
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    numbers = [name not in ("scenario", "way", "kept") for name in COLUMNS]
    shown = [
        "| " + " | ".join(text.rjust(w) if right else text.ljust(w) for text, w, right in zip(row, widths, numbers)) + " |"
        for row in rows
    ]
    rule = "|" + "|".join("-" * (w + 1) + (":" if right else "-") for w, right in zip(widths, numbers)) + "|"
    return "\n".join([shown[0], rule, *shown[1:]])


def main(filters: list[str]) -> int:
    """Exit codes: 0 every promise was kept, 1 one was not, 2 could not run."""
    target = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    report = Path(os.environ.get("FAULTS_REPORT") or target / "faults.jsonl")
    report.parent.mkdir(parents=True, exist_ok=True)
    report.unlink(missing_ok=True)
    environment = dict(os.environ)
    for setting in shlex.split(os.environ.get("CLIPPY", "")):
        name, _, value = setting.partition("=")
        environment[name] = value
    name = f"faults-{os.getpid()}"
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        subprocess.run([*STACK, "up", "--name", name, "--ports", "free"], check=True)
        exports = subprocess.run([*STACK, "env", "--name", name], check=True, capture_output=True, text=True).stdout
        for line in shlex.split(exports, comments=True):
            variable, found, value = line.partition("=")
            if found:
                environment[variable] = value
        environment |= {"FAULTS": environment.get("FAULTS", "full"), "FAULTS_REPORT": str(report)}
        tests = ["cargo", "test", "--test", "faults", "--", "--include-ignored", "--test-threads=1", *filters]
        passed = subprocess.run(tests, cwd=ROOT, env=environment).returncode == 0
    except (subprocess.CalledProcessError, OSError) as error:
        print(f"faults.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        # What was found so far is shown.
        passed = False
    finally:
        subprocess.run([*STACK, "down", "--name", name], stdout=subprocess.DEVNULL)
    lines = [json.loads(line) for line in report.read_text().splitlines()] if report.exists() else []
    print(f"\n{table(lines)}\n\nFAULTS_SEED={lines[0]['seed'] if lines else '?'}; the lines are in {report}")
    broken = [line for line in lines if not line["kept"]]
    print(f"{len(lines)} lines, {len(broken)} broken promises" + ("" if passed else "; tests have failed"))
    return 0 if passed and lines and not broken else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
