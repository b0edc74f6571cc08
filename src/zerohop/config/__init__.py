"""Configuration: YAML files to checked objects. Every error of every file is found, with its place and a fix."""

from __future__ import annotations

from pathlib import Path

from zerohop.collection import collection_paused
from zerohop.config import files
from zerohop.config.documents import compose
from zerohop.config.errors import ConfigError, ConfigurationError, Problems, Source
from zerohop.config.kinds import Objects
from zerohop.config.model import (
    Configuration,
    Endpoint,
    EndpointPort,
    EndpointSlice,
    Service,
    ServicePort,
    Shortcut,
    Transport,
    Workload,
)
from zerohop.config.policies import ROOT_NAMESPACE, TRUST_DOMAIN, AuthorizationPolicy
from zerohop.config.references import check_references

__all__ = [
    "AuthorizationPolicy",
    "ConfigError",
    "Configuration",
    "ConfigurationError",
    "Endpoint",
    "EndpointPort",
    "EndpointSlice",
    "Service",
    "ServicePort",
    "Shortcut",
    "Source",
    "Transport",
    "Workload",
    "digest",
    "load",
]


def load(path: Path, *, root_namespace: str = ROOT_NAMESPACE, trust_domain: str = TRUST_DOMAIN) -> Configuration:
    """Reads a file, or a directory's `*.yaml` and `*.yml` in the order of their names.

    `root_namespace`: policies there are for workloads of every namespace. `trust_domain`: begins every identity.

    Raises `ConfigurationError` with all errors of all files, ordered by place; a path that cannot be read is one.
    """
    with collection_paused():
        return _load(path, root_namespace, trust_domain)


def _load(path: Path, root_namespace: str, trust_domain: str) -> Configuration:
    problems = Problems()
    objects = Objects()
    read = files.read_files(path, problems)
    for file in read:
        text = files.decode(file, problems)
        if text is None:
            continue
        before = (objects.count, len(problems.errors))
        empty = True
        for root in compose(text, file.name, problems):
            empty = False
            objects.read(root, problems)
        if empty and before == (objects.count, len(problems.errors)):
            # Mostly a file that is being written: taking it for "no objects" would take workloads out.
            problems.add(Source(file.name, 1), "no objects in the file", "add one, or remove the file")
            problems.lose_all()
    check_references(objects, problems)
    if problems.errors:
        order = {file.name: number for number, file in enumerate(read)}
        errors = sorted(problems.errors, key=lambda each: (order.get(each.file, -1), each.line, each.column))
        raise ConfigurationError(errors, objects=objects.count)
    return Configuration(
        workloads=tuple(placed.object for placed in objects.workloads),
        services=tuple(placed.object for placed in objects.services),
        endpoint_slices=tuple(placed.object for placed in objects.endpoint_slices),
        digest=files.digest(read),
        policies=tuple(placed.object for placed in objects.policies),
        root_namespace=root_namespace,
        trust_domain=trust_domain,
    )


def digest(path: Path) -> str:
    """The `Configuration.digest` that `load` would give, without the cost of reading the objects.

    Files that cannot be read count as empty, so that it never raises for them.
    """
    return files.digest(files.read_files(path, Problems()))
