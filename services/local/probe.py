"""Is a service ready? Each probe has the service do a little real work; an open port alone proves nothing."""

from __future__ import annotations

import http.client
import socket
import struct
import urllib.parse
import urllib.request

from .mqtt import MqttError, Publisher

HOST = "127.0.0.1"
TIMEOUT = 2.0

# Like urllib.request.urlopen, but never through a proxy that the environment may name.
open_local = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


def mqtt(port: int) -> bool:
    """An MQTT broker accepts a connection."""
    try:
        Publisher(HOST, port, timeout=TIMEOUT).close()
        return True
    except (OSError, MqttError):
        return False


def kafka(port: int) -> bool:
    """A Kafka broker answers a metadata request and knows itself as a broker, so it serves clients."""
    api_key, version, correlation, no_client_id = 3, 4, 1, -1
    no_topics, no_auto_creation = 0, 0
    request = struct.pack(">hhihi?", api_key, version, correlation, no_client_id, no_topics, no_auto_creation)
    try:
        with socket.create_connection((HOST, port), TIMEOUT) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            # Length, correlation id, throttle time, number of brokers.
            answer = b""
            while len(answer) < 16:
                data = connection.recv(1024)
                if not data:
                    return False
                answer += data
            return struct.unpack(">4i", answer[:16])[3] >= 1
    except OSError:
        return False


def clickhouse(port: int) -> bool:
    """ClickHouse answers a query over HTTP."""
    connection = http.client.HTTPConnection(HOST, port, timeout=TIMEOUT)
    try:
        connection.request("GET", "/?" + urllib.parse.urlencode({"query": "SELECT 1"}))
        answer = connection.getresponse()
        return answer.status == 200 and answer.read() == b"1\n"
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def listening(port: int) -> bool:
    """Somebody accepts connections on the port."""
    try:
        socket.create_connection((HOST, port), TIMEOUT).close()
        return True
    except OSError:
        return False
