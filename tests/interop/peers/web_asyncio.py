"""A small HTTP/1.1 server on asyncio streams: GET /NAME answers a file of FOLDER, PUT answers the body's SHA-256.

web_asyncio.py PORT FOLDER
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from pathlib import Path

FOLDER = Path(sys.argv[2])


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            method, path, _ = head[0].split()
            fields = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            if fields.get("expect") == "100-continue":
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            length = int(fields.get("content-length", 0))
            digest = hashlib.sha256()
            while length:
                block = await reader.read(min(length, 65536))
                if not block:
                    return
                digest.update(block)
                length -= len(block)
            body = digest.hexdigest().encode() if method == "PUT" else (FOLDER / path.lstrip("/")).read_bytes()
            writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main() -> None:
    server = await asyncio.start_server(answer, ["::", "0.0.0.0"], int(sys.argv[1]))
    await server.serve_forever()


asyncio.run(main())
