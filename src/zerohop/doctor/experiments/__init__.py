"""Every fact about the kernel on which the short-cut rests, as an experiment: real sockets, the real programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from zerohop.doctor.checks import Effect, Subject
from zerohop.doctor.experiments import leaving, order, overlap, paths, pressure, visible
from zerohop.doctor.scene import Scene


@dataclass(frozen=True)
class Experiment:
    """`play` returns what it saw, or raises `Broken` or `Unknown`.

    `leaves`: it takes sockets out of the sockhash. Where `fionread` is broken the kernel has counted their redirected
    bytes as TCP's, and warns in its log when such a socket is read (tcp_recvmsg_locked): not to be provoked.
    """

    subject: Subject
    play: Callable[[Scene], str]
    leaves: bool = False


def _decides(name: str, play: Callable[[Scene], str], why: str, *, leaves: bool = False) -> Experiment:
    """One without which `run` does not use the short-cut."""
    consequence = f"{why}; run keeps every connection on plain TCP: correct, without the gain. Try a newer kernel"
    return Experiment(Subject(name, Effect.NO_SHORTCUT, consequence), play, leaves)


def _degrades(name: str, play: Callable[[Scene], str], consequence: str, *, leaves: bool = False) -> Experiment:
    return Experiment(Subject(name, Effect.DEGRADES, consequence), play, leaves)


EXPERIMENTS: Final = (
    _decides("redirect", paths.redirect, "no byte goes past TCP"),
    _decides("order", order.order, "bytes could arrive in the wrong order"),
    _decides("overlap", overlap.overlap, "bytes could arrive twice when TCP sends some again"),
    _decides("fionread", visible.fionread, "nginx, Java and .NET would stall or truncate"),
    _decides("early-data", order.early_data, "what a client writes first could come late or never"),
    _decides("back-pressure", pressure.back_pressure, "a slow reader would not slow its writer and fill memory"),
    _decides("four-tuple-reuse", paths.four_tuple_reuse, "strangers' bytes could mix"),
    _decides("lost-target", leaving.lost_target, "writes could fail while a connection ends", leaves=True),
    _decides("leave", leaving.leave, "bulk transfers could lose bytes", leaves=True),
    _degrades(
        "copied-seq",
        leaving.copied_seq,
        "bulk connections stay with the short-cut's hooks, slower than TCP; exclude their ports. clean leaves the"
        " programs loaded until the connections that are open close",
        leaves=True,
    ),
    _degrades("v4-mapped", paths.v4_mapped, "servers that listen on :: serve IPv4 clients by TCP; listen on 0.0.0.0"),
    _degrades("ipv6", paths.ipv6, "connections over IPv6 stay plain TCP"),
    _degrades("veth", paths.veth, "connections between network namespaces stay plain TCP"),
    _degrades("dnat", paths.dnat, "connections through kube-proxy's addresses stay plain TCP"),
    _degrades(
        "splice",
        visible.splice,
        "Go's io.Copy and haproxy's splicing can hang; give their workloads shortcut: Disabled",
    ),
)
