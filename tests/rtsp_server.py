"""An RTSP server on 127.0.0.1 for one visitor: MPEG-TS in RTP over the same connection (RFC 2326, 3551)."""

from __future__ import annotations

import re
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

TS_PACKET = 188
PER_RTP_PACKET = 7 * TS_PACKET
MP2T = 33
"""Payload type of MPEG-TS, whose clock has 90 kHz (RFC 3551, 6)."""
SDP = f"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\nm=video 0 RTP/AVP {MP2T}\r\na=control:track\r\n"
HEADERS = {
    "OPTIONS": "Public: DESCRIBE, SETUP, PLAY, TEARDOWN\r\n",
    "DESCRIBE": f"Content-Type: application/sdp\r\nContent-Length: {len(SDP)}\r\n",
    "SETUP": "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n",
    "PLAY": "Session: 1\r\n",
}


@contextmanager
def rtsp_server(stream: bytes) -> Iterator[str]:
    """The address where one visitor gets an MPEG-TS stream; then the connection is closed."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_serve, args=(server, stream))
        thread.start()
        yield f"rtsp://me:secret@127.0.0.1:{server.getsockname()[1]}/live"
        thread.join()


def _serve(server: socket.socket, stream: bytes) -> None:
    visitor, _ = server.accept()
    with visitor, visitor.makefile("rb") as requests:
        method = ""
        while method != "PLAY":
            lines = list(iter(requests.readline, b"\r\n"))
            method = lines[0].split()[0].decode()
            number = re.search(rb"CSeq: (\d+)", b"".join(lines))
            assert number is not None
            body = SDP if method == "DESCRIBE" else ""
            answer = f"RTSP/1.0 200 OK\r\nCSeq: {number[1].decode()}\r\n{HEADERS[method]}\r\n{body}"
            visitor.sendall(answer.encode())
        for count, start in enumerate(range(0, len(stream), PER_RTP_PACKET)):
            payload = stream[start : start + PER_RTP_PACKET]
            header = struct.pack(">BBHII", 0x80, MP2T, count & 0xFFFF, 3000 * count, 1)
            visitor.sendall(struct.pack(">cBH", b"$", 0, len(header) + len(payload)) + header + payload)
