"""nginx: files with and without sendfile, uploads, and as an HTTP proxy between two managed ends."""

from __future__ import annotations

import hashlib
import re
import signal
from pathlib import Path

import pytest

from interop.conftest import Payload
from interop.nginx import configure
from interop.stage import CLIENT, PORT, PROXY, PROXY_PORT, SERVER, Stage, need

QUIET = ["curl", "--silent", "--show-error", "--fail", "--max-time", "40"]
REQUESTS = 3200

FILES = """
  sendfile {sendfile};
  tcp_nopush {sendfile};
  server {{
    listen 127.0.0.1:{port};
    location / {{ root {files}; }}
    location /up/ {{ root {folder}; dav_methods PUT; create_full_put_path on; }}
  }}
"""

FORWARD = """
  upstream behind {{ server 127.0.0.1:{port}; keepalive 16; }}
  server {{
    listen 127.0.0.1:{proxy_port};
    location / {{
      proxy_pass http://behind;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_request_buffering off;
    }}
  }}
"""


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("sendfile", ["on", "off"])
def test_nginx(play: Stage, files: Payload, sendfile: str) -> None:
    need("nginx", "curl", "h2load")
    serving = FILES.format(sendfile=sendfile, port=PORT, files=files.folder, folder=play.folder)
    forwarding = FORWARD.format(port=PORT, proxy_port=PROXY_PORT)
    server = play.serve(SERVER, configure(play.folder, "files", serving), PORT)
    proxy = play.serve(PROXY, configure(play.folder, "proxy", forwarding), PROXY_PORT)

    for port in (PORT, PROXY_PORT):
        url = f"http://127.0.0.1:{port}"
        load = play.run(
            CLIENT, ["h2load", "--h1", "-n", str(REQUESTS), "-c", "8", "-t", "1", f"{url}/small", f"{url}/tiny"]
        )
        assert f"{REQUESTS} succeeded, 0 failed, 0 errored, 0 timeout" in load, load
        data = re.search(r"\((\d+)\) data", load)
        assert data
        assert int(data[1]) == REQUESTS // 2 * 1001
        for name in ("tiny", "medium", "large", "huge"):
            play.run(CLIENT, [*QUIET, f"{url}/{name}", "-o", "got"])
            assert sha256(play.folder / "got") == files.sums[name], f"{name} by port {port}"
        for name in ("small", "huge"):
            play.run(CLIENT, [*QUIET, "-T", str(files.folder / name), f"{url}/up/{port}-{name}"])
            assert sha256(play.folder / "up" / f"{port}-{name}") == files.sums[name], f"{name} by port {port}"

    play.expect_shortcut(allowed=["bulk"])
    for program in (proxy, server):
        assert play.stop(program, signal.SIGQUIT) == 0
