"""NGINX in the foreground, with a configuration of its own and every file that it writes in a test's folder."""

from __future__ import annotations

from pathlib import Path

from interop.stage import located

FRAME = """
daemon off;
master_process on;
worker_processes 2;
user root;
pid {folder}/nginx-{name}.pid;
error_log stderr warn;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_max_body_size 100m;
  client_body_temp_path {folder}/{name}-body;
  proxy_temp_path {folder}/{name}-proxy;
  fastcgi_temp_path {folder}/{name}-fastcgi;
  uwsgi_temp_path {folder}/{name}-uwsgi;
  scgi_temp_path {folder}/{name}-scgi;
  {body}
}}
"""


def configure(folder: Path, name: str, body: str) -> list[str]:
    """Writes a configuration, `body` in its block `http`: the command that runs it."""
    path = folder / f"{name}.conf"
    path.write_text(FRAME.format(folder=folder, name=name, body=body))
    return [located("nginx"), "-c", str(path), "-e", "stderr"]
