"""A small MQTT 3.1.1 client: connects, and publishes with QoS 1, so that it knows what the broker has taken."""

from __future__ import annotations

import socket
import struct

CONNECT, CONNACK, PUBLISH, PUBACK, DISCONNECT = 1, 2, 3, 4, 14


class MqttError(Exception):
    """The broker refused something, or broke the protocol."""


class Publisher:
    """One connection that publishes one message at a time with QoS 1. No keep-alive: it may stay silent."""

    def __init__(self, host: str, port: int, client_id: str = "", timeout: float = 10.0) -> None:
        self._packet_id = 0
        self._socket = socket.create_connection((host, port), timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = self._socket.makefile("rb")
        try:
            level, clean_session, keep_alive = 4, 2, 0
            self._send(
                CONNECT, 0, _string("MQTT") + struct.pack(">BBH", level, clean_session, keep_alive) + _string(client_id)
            )
            kind, body = self._receive()
            if kind != CONNACK or len(body) != 2:
                raise MqttError(f"expected CONNACK, got packet type {kind}")
            if body[1] != 0:
                raise MqttError(f"connection refused with code {body[1]}")
        except BaseException:
            self._close()
            raise

    def publish(self, topic: str, payload: bytes) -> None:
        """Sends one message and returns once the broker has acknowledged it."""
        self._packet_id = self._packet_id % 65535 + 1
        packet_id = struct.pack(">H", self._packet_id)
        self._send(PUBLISH, 0b0010, _string(topic) + packet_id + payload)
        kind, body = self._receive()
        if kind != PUBACK or body[:2] != packet_id:
            raise MqttError(f"expected PUBACK {self._packet_id}, got packet type {kind}")

    def close(self) -> None:
        """Says goodbye and closes the connection."""
        try:
            self._send(DISCONNECT, 0, b"")
        finally:
            self._close()

    def _close(self) -> None:
        self._reader.close()
        self._socket.close()

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        self._socket.sendall(bytes([kind << 4 | flags]) + _length(len(body)) + body)

    def _receive(self) -> tuple[int, bytes]:
        kind = self._exactly(1)[0] >> 4
        length = shift = 0
        while True:
            byte = self._exactly(1)[0]
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return kind, self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        data = self._reader.read(count)
        if data is None or len(data) != count:
            raise MqttError("the broker closed the connection")
        return data


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack(">H", len(data)) + data


def _length(number: int) -> bytes:
    """The remaining length: seven bits a byte, the lowest first."""
    encoded = bytearray()
    while True:
        number, byte = divmod(number, 128)
        encoded.append(byte | (128 if number else 0))
        if not number:
            return bytes(encoded)
