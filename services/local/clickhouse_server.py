"""Runs the ClickHouse server inside libchdb.so until the process is ended.

Usage: clickhouse_server.py LIBCHDB CONFIG DATA HTTP_PORT TCP_PORT

The library's entry point is that of the `clickhouse` program. `clickhouse local` can open the server's ports
(SYSTEM START LISTEN), and they stay open while its query runs; so the last query never ends.
"""

import ctypes
import sys

FOREVER = """SELECT sleepEachRow(1) FROM numbers(1000000000) SETTINGS max_block_size = 1, max_execution_time = 0,
    function_sleep_max_microseconds_per_block = 1000000000000000000 FORMAT Null"""


def main() -> None:
    """Opens both ports and stays."""
    library, config, data, http_port, tcp_port = sys.argv[1:6]
    arguments = [
        "clickhouse",
        "--config-file",
        config,
        "--path",
        data,
        "--listen_host",
        "127.0.0.1",
        "--http_port",
        http_port,
        "--tcp_port",
        tcp_port,
        "--logger.console",
        "--log-level",
        "information",
        "--query",
        f"SYSTEM START LISTEN HTTP; SYSTEM START LISTEN TCP; {FOREVER}",
    ]
    run = ctypes.CDLL(library).chdb_query_cmdline
    run.argtypes = [ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)]
    run.restype = ctypes.c_void_p
    run(len(arguments), (ctypes.c_char_p * len(arguments))(*[argument.encode() for argument in arguments]))
    sys.exit("the ClickHouse server ended by itself")


if __name__ == "__main__":
    main()
