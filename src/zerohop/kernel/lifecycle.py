"""An instance's data path over time: made, adopted, replaced by another build, removed."""

from __future__ import annotations

import contextlib
import enum
import logging
import os
from collections.abc import Callable, Iterator

from zerohop.errors import ZerohopError
from zerohop.kernel import cgroup, libbpf, pins
from zerohop.kernel.datapath import CGROUP_HOOKS, DataPath
from zerohop.kernel.drain import drain

log = logging.getLogger("zerohop")


class Origin(enum.StrEnum):
    """Where a data path came from."""

    CREATED = "created"
    ADOPTED = "adopted"
    REPLACED = "replaced"


def obtain(instance: str, prepare: Callable[[DataPath], None] = lambda _: None) -> tuple[DataPath, Origin]:
    """Adopts the instance's pins when this very build made them, else makes a new data path.

    Another build's attachments are exchanged link by link, each in one step, so that no connection is made unseen;
    its connections go on over TCP. `prepare` fills the tables, before anything attached depends on them. Raises
    `ZerohopError`.
    """
    for leftover in (pins.staging(instance), pins.retired(instance)):
        pins.remove(leftover)
    folder = pins.folder(instance)
    if not folder.exists():
        return _prepared(DataPath.load(folder), prepare), Origin.CREATED
    with _pinned(instance) as old:
        if old is not None and old.is_current_build():
            try:
                path = DataPath.open(instance)
            except libbpf.BpfError as error:
                log.warning("%s is not whole, so it is made anew: %s", folder, error)
            else:
                _resume(path)
                return _prepared(path, prepare), Origin.ADOPTED
        if old is not None:
            staying = _drain(old)
            if staying:
                log.info("%d sockets keep the replaced programs until they close", staying)
    return _replace(instance, prepare), Origin.REPLACED


def _prepared(path: DataPath, prepare: Callable[[DataPath], None]) -> DataPath:
    try:
        prepare(path)
    except BaseException:
        path.close()
        raise
    return path


@contextlib.contextmanager
def _pinned(instance: str) -> Iterator[DataPath | None]:
    """Whatever an instance has pinned; None when it cannot be read, which the log says."""
    try:
        path = DataPath.open_any(instance)
    except (ZerohopError, TypeError) as error:
        log.warning("%s cannot be read, its connections stay as they are: %s", pins.folder(instance), error)
        yield None
        return
    with path:
        yield path


def _drain(path: DataPath, *, timeout: float = 4.0) -> int:
    """`drain`; when the kernel does not let this build read the tables, the log says so."""
    try:
        return drain(path, timeout=timeout) or 0
    except libbpf.BpfError as error:
        log.warning("%s cannot be read, its connections stay as they are: %s", path.folder, error)
        return 0


def _resume(path: DataPath) -> None:
    """Ends a drain that did not finish; a folder of links that somebody removed is made again, empty."""
    for name in CGROUP_HOOKS:
        (path.folder / name).mkdir(exist_ok=True)
    settings = path.settings()
    if settings.draining:
        settings.draining = 0
        path.write_settings(settings)


def _replace(instance: str, prepare: Callable[[DataPath], None]) -> DataPath:
    folder, staging, retired = pins.folder(instance), pins.staging(instance), pins.retired(instance)
    try:
        path = _prepared(DataPath.load(staging, predecessor=folder), prepare)
    except BaseException:
        pins.remove(staging)
        raise
    for kind, hook in CGROUP_HOOKS.items():
        links = folder / kind
        for name in os.listdir(links) if links.exists() else ():
            link = libbpf.obj_get(str(links / name))
            try:
                libbpf.link_update(link, path.programs[hook.program])
            except libbpf.BpfError:
                continue  # its cgroup has gone: the agent attaches afresh where one is needed
            finally:
                os.close(link)
            os.rename(links / name, staging / kind / name)
    os.rename(folder, retired)
    os.rename(staging, folder)
    path.folder = folder
    pins.remove(retired)
    return path


def remove(instance: str, *, timeout: float = 4.0) -> tuple[bool, int]:
    """Removes every trace of an instance, whichever build or part of one it is; open connections live on.

    Returns whether there was one, and how many sockets keep the programs alive until they close.
    """
    staying = 0
    folder = pins.folder(instance)
    found = folder.exists()
    if found:
        with _pinned(instance) as path:
            staying = _drain(path, timeout=timeout) if path is not None else 0
    for place in (folder, pins.staging(instance), pins.retired(instance)):
        pins.remove(place)
    own = cgroup.absolute(cgroup.instance_path(instance))
    if own.exists():
        found = True
        cgroup.remove(cgroup.instance_path(instance))
    with contextlib.suppress(OSError):
        own.parent.rmdir()
    return found, staying
