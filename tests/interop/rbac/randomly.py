"""Random policies and calls, of few words so that they meet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

WORDS = ("/shop.Cart/Add", "/shop.Cart/Get", "/shop.Admin/Get", "/a/b", "/a/bb/c")
PATHS = (*WORDS, "/shop.Cart/AddAll", "/b/a", "/shop.Cart", "/a/b/c/d", "/A/b")
TEMPLATES = ("/a/{*}", "/{*}/Get", "/{**}", "/shop.Cart/{*}", "/a/{*}/c", "/a/{**}")
HOSTS = ("cart", "cart.shop", "CART.shop", "web.shop", "cart:80")
USERS = ("ann", "annie", "ann-b", "bob", "Ann", "")
HEADERS = ("x-user", "x-role")
SOURCES = ("127.0.0.11", "127.1.2.3", "127.9.9.9")
DESTINATIONS = ("127.0.0.1", "127.5.5.5")
BLOCKS = ("127.0.0.0/8", "127.1.0.0/16", "127.1.2.3", "127.0.0.0/16", "10.0.0.0/8", "127.5.5.5/32", "0.0.0.0/0")
CALLERS = ("shop/web", "bank/teller", None)

Values = dict[str, list[str]]


@dataclass(frozen=True)
class Call:
    path: str
    host: str
    headers: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Connection:
    """`caller`: the client's workload, None outside the mesh."""

    caller: str | None
    source: str
    destination: str
    port: int
    calls: tuple[Call, ...]


def near(random: Random, words: Sequence[str]) -> str:
    """A word, its beginning or its end as a pattern, or any."""
    word = random.choice([each for each in words if each])
    cut = random.randrange(1, len(word))
    return random.choice((word, word, word + "*", word[:cut] + "*", "*" + word[cut:], "*"))


class Maker:
    """Policies for one port, by what it is asked for."""

    def __init__(self, random: Random, port: int) -> None:
        self.random = random
        self.port = port

    def some(self, make: Callable[[], str], *, most: int = 2) -> list[str]:
        return [make() for _ in range(self.random.randint(1, most))]

    def values(self, name: str, make: Callable[[], str]) -> Values:
        """A field, its negation, or both."""
        negated = f"not{name[0].upper()}{name[1:]}"
        kind = self.random.randrange(5)
        found = {name: self.some(make)} if kind != 0 else {}
        return found | ({negated: self.some(make)} if kind < 2 else {})

    def principal(self) -> str:
        full = self.random.choice(("cluster.local/ns/shop/sa/web", "cluster.local/ns/bank/sa/teller"))
        return near(self.random, (full, "cluster.local/ns/shop/sa/other"))

    def namespace(self) -> str:
        return self.random.choice(("shop", "bank", "s*", "*nk", "other"))

    def block(self) -> str:
        return self.random.choice(BLOCKS)

    def number(self) -> str:
        return self.random.choice((str(self.port), str(self.port), "9", str(self.port + 1)))

    def path(self) -> str:
        return self.random.choice((near(self.random, WORDS), self.random.choice(TEMPLATES)))

    def source(self) -> Values:
        fields: dict[str, Callable[[], str]] = {
            "principals": self.principal,
            "namespaces": self.namespace,
            "ipBlocks": self.block,
            "remoteIpBlocks": self.block,
        }
        if self.random.randrange(4) == 0:
            accounts = ("shop/web", "bank/teller", "shop/other")
            return self.values("serviceAccounts", lambda: self.random.choice(accounts))
        return self.pick(fields)

    def operation(self) -> Values:
        return self.pick(
            {
                "paths": self.path,
                "hosts": lambda: near(self.random, HOSTS[:4]),
                "methods": lambda: self.random.choice(("POST", "GET", "P*", "*T", "*")),
                "ports": self.number,
            }
        )

    def pick(self, fields: dict[str, Callable[[], str]]) -> Values:
        names = self.random.sample(sorted(fields), self.random.randint(1, 2))
        found: Values = {}
        for name in names:
            found |= self.values(name, fields[name])
        return found

    def condition(self) -> dict[str, Any]:
        makers: dict[str, Callable[[], str]] = {
            "request.headers[x-user]": lambda: near(self.random, USERS),
            "request.headers[X-Role]": lambda: near(self.random, USERS),
            "request.headers[Host]": lambda: near(self.random, HOSTS[:4]),
            "source.ip": self.block,
            "remote.ip": self.block,
            "destination.ip": self.block,
            "source.namespace": self.namespace,
            "source.principal": self.principal,
            "destination.port": self.number,
        }
        key = self.random.choice(sorted(makers))
        return {"key": key, **self.values("values", makers[key])}

    def rule(self) -> dict[str, Any]:
        rule: dict[str, Any] = {}
        if self.random.randrange(2):
            rule["from"] = [{"source": self.source()} for _ in range(self.random.randint(1, 2))]
        if self.random.randrange(3):
            rule["to"] = [{"operation": self.operation()} for _ in range(self.random.randint(1, 2))]
        if self.random.randrange(2):
            rule["when"] = [self.condition() for _ in range(self.random.randint(1, 2))]
        return rule

    def policies(self, service: str, namespace: str) -> list[dict[str, Any]]:
        """One to three AuthorizationPolicies for a Service."""
        found = []
        for number in range(self.random.randint(1, 3)):
            action = self.random.choice(("ALLOW", "ALLOW", "DENY"))
            spec: dict[str, Any] = {
                "action": action,
                "targetRefs": [{"group": "", "kind": "Service", "name": service}],
            }
            if self.random.randrange(12):
                spec["rules"] = [self.rule() for _ in range(self.random.randint(1, 3))]
            found.append(
                {
                    "apiVersion": "security.istio.io/v1",
                    "kind": "AuthorizationPolicy",
                    "metadata": {"name": f"{service}-{number}", "namespace": namespace},
                    "spec": spec,
                }
            )
        return found

    def connections(self) -> list[Connection]:
        """Two of every caller."""
        return [
            Connection(
                caller,
                self.random.choice(SOURCES),
                self.random.choice(DESTINATIONS),
                self.port,
                tuple(self.call() for _ in range(4)),
            )
            for caller in CALLERS
            for _ in range(2)
        ]

    def call(self) -> Call:
        headers = tuple((name, self.random.choice(USERS)) for name in HEADERS if self.random.randrange(2))
        return Call(self.random.choice(PATHS), self.random.choice(HOSTS), headers)
