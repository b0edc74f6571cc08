"""The workloads that a bench can run."""

from __future__ import annotations

from typing import Final

from zerohop.bench.workloads.base import Workload
from zerohop.bench.workloads.bulk import Bulk
from zerohop.bench.workloads.grpc import Grpc
from zerohop.bench.workloads.http2 import Http2
from zerohop.bench.workloads.pingecho import PingEcho
from zerohop.bench.workloads.policy import Policy

_ALL: Final[tuple[Workload, ...]] = (PingEcho(), Http2(), Grpc(), Policy(), Bulk())

WORKLOADS: Final[dict[str, Workload]] = {workload.name: workload for workload in _ALL}
