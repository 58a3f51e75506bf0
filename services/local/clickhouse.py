"""ClickHouse as a plain process: the server inside libchdb.so, run by clickhouse_server.py."""

from __future__ import annotations

import sys
from xml.sax.saxutils import escape

from . import probe
from .folders import SERVICES
from .install import clickhouse_library
from .service import Service


class ClickHouse(Service):
    """The ClickHouse server. Its users need no password; it listens on the loopback address only."""

    name = "clickhouse"

    def prepare(self) -> None:
        users = escape(str(SERVICES / "clickhouse-users.xml"))
        config = f"<clickhouse><users_config>{users}</users_config></clickhouse>\n"
        (self.folder / "config.xml").write_text(config)

    def argv(self) -> list[str]:
        return [
            sys.executable,
            str(SERVICES / "local" / "clickhouse_server.py"),
            str(clickhouse_library()),
            str(self.folder / "config.xml"),
            str(self.data),
            str(self.all_ports["clickhouse_http"]),
            str(self.all_ports["clickhouse_tcp"]),
        ]

    def ready(self) -> bool:
        return probe.clickhouse(self.all_ports["clickhouse_http"]) and probe.listening(self.all_ports["clickhouse_tcp"])

    def worth_retrying(self, log: str) -> bool:
        # After kill -9 the kernel may take a moment to let go of the lock on the data folder.
        return "Cannot lock file" in log
