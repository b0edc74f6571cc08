"""Python's own blocking HTTP: http.server and urllib.

web_blocking.py serve PORT FOLDER
web_blocking.py fetch URL FOLDER
"""

from __future__ import annotations

import hashlib
import json
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        digest = hashlib.sha256(body).hexdigest().encode()
        self.send_response(200)
        self.send_header("content-length", str(len(digest)))
        self.end_headers()
        self.wfile.write(digest)

    def log_message(self, *arguments: object) -> None:
        pass


def fetch(url: str, sums: dict[str, str], folder: Path, name: str) -> int:
    for timeout in (None, 30):
        with urllib.request.urlopen(f"{url}/{name}", **({"timeout": timeout} if timeout else {})) as answer:
            body = answer.read()
        if hashlib.sha256(body).hexdigest() != sums[name]:
            raise SystemExit(f"{name}: {len(body)} wrong bytes")
        request = urllib.request.Request(f"{url}/sum", data=(folder / name).read_bytes(), method="PUT")
        with urllib.request.urlopen(request, **({"timeout": timeout} if timeout else {})) as answer:
            if answer.read().decode() != sums[name]:
                raise SystemExit(f"{name}: the server received other bytes")
    return 4


def main() -> None:
    mode, where, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    if mode == "serve":
        ThreadingHTTPServer(("127.0.0.1", int(where)), partial(Handler, directory=str(folder))).serve_forever()
    sums = json.loads((folder / "sums.json").read_text())
    names = ["tiny", "small", "medium"] * 10 + ["large"]
    with ThreadPoolExecutor(4) as pool:
        print(json.dumps({"requests": sum(pool.map(lambda name: fetch(where, sums, folder, name), names))}))


main()
