"""How calls end, as Envoy's access log and Istio's metrics say it."""

from __future__ import annotations

from typing import Final

# %RESPONSE_FLAGS% of a proxy between client and server: downstream is the client, upstream the server. Envoy has none
# for a call that was no longer watched.
# https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage
RESPONSE_FLAGS: Final = {
    "complete": "-", "client_reset": "DR", "server_reset": "UR", "closed": "UC", "unread": "UNREAD",
}  # fmt: skip
