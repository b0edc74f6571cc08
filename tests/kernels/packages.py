"""Debian's kernels: which there are, and fetching one without installing it.

apt reads a configuration of its own in a cache folder; the machine's sources are only asked which mirror it uses.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

SUITES = ("bookworm", "bookworm-backports", "trixie", "trixie-backports", "forky", "sid")
INDEX_SECONDS = 24 * 3600

# A kernel is one package, or (since 6.19) its image and its modules are packages of their own.
WHOLE, PARTS = "linux-image", ("linux-binary", "linux-modules")


class PackageError(Exception):
    """The message names the fix."""


@dataclass(frozen=True)
class Kernel:
    """`release` is what `uname -r` says; `image` lies in a tree that has its modules too."""

    release: str
    image: Path

    @property
    def version(self) -> tuple[int, ...]:
        return numbers(self.release)


def numbers(release: str) -> tuple[int, ...]:
    """The numbers of a release, for ordering: 6.12.107+deb13-amd64 is (6, 12, 107, 13, 64)."""
    return tuple(int(each) for each in re.findall(r"\d+", release))


def cache() -> Path:
    """Not below /var/cache or /var/tmp: the virtual machine sees empty folders there."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "zerohop-kernels"


class Archive:
    """The mirror of this machine, with suites that the machine itself need not use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.architecture = _run("dpkg", "--print-architecture").strip()
        self._lists = folder / "apt" / "lists"
        self._sources = folder / "apt" / "sources.list"
        for each in (self._lists / "partial", folder / "apt" / "archives" / "partial"):
            each.mkdir(parents=True, exist_ok=True)
        (folder / "apt" / "status").touch()

    def releases(self) -> list[str]:
        """Every kernel of the plain flavour, oldest first; not those whose modules the mirror no longer has."""
        self._refresh()
        names = self._names()
        pattern = re.compile(rf"linux-image-(\d+\.\d+[^ ]*?-{self.architecture})$")
        flavours = re.compile(r"-(cloud|rt)-")
        found = {match[1] for name in names if (match := pattern.match(name)) and not flavours.search(name)}
        found = {each for each in found if len(self._parts(each, names)) != 1}
        return sorted(found, key=numbers)

    def newest(self, wanted: str) -> str:
        """The newest release of `7`, `6.12`, `6.12.43`, or a whole release."""
        releases = self.releases()
        fitting = [each for each in releases if each == wanted or re.match(rf"{re.escape(wanted)}[.+-]", each)]
        if not fitting:
            series = sorted({".".join(each.split(".")[:2]) for each in releases}, key=numbers)
            raise PackageError(f"no kernel {wanted!r}; the mirror serves {', '.join(series)}")
        return fitting[-1]

    def fetch(self, release: str) -> Kernel:
        """Downloads and unpacks a release, unless the cache has it."""
        tree = self.folder / release
        if not tree.exists():
            partial = self.folder / f"{release}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            parts = self._parts(release, self._names())
            self._apt("apt-get", "download", *(parts or [f"{WHOLE}-{release}"]), folder=partial)
            for package in partial.glob("*.deb"):
                _run("dpkg", "-x", str(package), str(partial))
                package.unlink()
            partial.rename(tree)
        for image in (tree / "boot" / f"vmlinuz-{release}", tree / "usr" / "lib" / "modules" / release / "vmlinuz"):
            if image.exists():
                return Kernel(release, image)
        raise PackageError(f"the packages of {release} have no kernel image: remove {tree} and try again")

    @staticmethod
    def _parts(release: str, names: set[str]) -> list[str]:
        """The packages into which a release is divided; none when it is one."""
        return [name for part in PARTS if (name := f"{part}-{release}") in names]

    def _refresh(self) -> None:
        """Once a day is enough."""
        stamp = self.folder / "apt" / "stamp"
        mirror = _mirror()
        self._sources.write_text("".join(f"deb [target=Packages] {mirror} {suite} main\n" for suite in SUITES))
        if stamp.exists() and time.time() - stamp.stat().st_mtime < INDEX_SECONDS:
            return
        self._apt("apt-get", "update", "--quiet")
        stamp.touch()

    def _names(self) -> set[str]:
        return set(self._apt("apt-cache", "pkgnames", "linux-").split())

    def _apt(self, command: str, *arguments: str, folder: Path | None = None) -> str:
        own = self.folder / "apt"
        settings = {
            "Dir::Etc::sourcelist": self._sources,
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::State::lists": self._lists,
            "Dir::State::status": own / "status",
            "Dir::Cache": own,
            "Acquire::Languages": "none",
            "APT::Sandbox::User": "root",  # its own user cannot write into this cache
        }
        options = [each for key, value in settings.items() for each in ("-o", f"{key}={value}")]
        return _run(command, *options, *arguments, folder=folder)


def _mirror() -> str:
    """The archive from which this machine has its own suite."""
    listed = _run(
        "apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages", "Origin: Debian"
    )
    for line in listed.splitlines():
        address, _, release = line.partition(" ")
        if "-" not in release:  # neither -security nor -updates nor -backports
            return address
    raise PackageError("no Debian archive among apt's sources: run this on Debian, after apt-get update")


def _run(*command: str, folder: Path | None = None) -> str:
    try:
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    except FileNotFoundError:
        raise PackageError(f"{command[0]} is missing: run this on Debian") from None
    if result.returncode != 0:
        raise PackageError(f"{command[0]} failed: {result.stderr.strip()}")
    return result.stdout
