"""The policy compiler, against Istio's reference read word by word."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.policy_semantics import Request, Semantics
from zerohop.compiler import compile_tables
from zerohop.compiler.policies import (
    TERMINAL,
    PolicyTables,
    TooComplexError,
    compile_policies,
)
from zerohop.compiler.policies.walk import IN_DOUBT, Call, plain_path, take_fields, walk
from zerohop.config import Configuration, Service, ServicePort, Shortcut, Source, Transport, Workload
from zerohop.config.policies import (
    Action,
    AuthorizationPolicy,
    Caller,
    Condition,
    Existing,
    Operation,
    Rule,
    Unreadable,
    Values,
)

EXAMPLES = int(os.environ.get("ZEROHOP_POLICY_EXAMPLES", "300"))
PLACE = Source("policies.yaml", 7)
HTTP, PLAIN = 50051, 5432


def workload(namespace: str, name: str, account: str = "default", app: str = "") -> Workload:
    labels = {"app": app or name}
    return Workload(
        namespace, name, labels, account, ("127.0.0.1",), (), (), Shortcut.AUTO, (), Source("workloads.yaml", 1)
    )


WORKLOADS = (
    workload("shop", "cart", "cart"),
    workload("shop", "web", "web"),
    workload("shop", "web2", "web", "web"),
    workload("bank", "ledger"),
)
SERVICES = tuple(
    Service(
        each.namespace,
        each.name,
        {},
        {"app": each.labels["app"]},
        (),
        (
            ServicePort("grpc", 80, HTTP, Transport.TCP, "grpc", PLACE, PLACE),
            ServicePort("tcp", 81, PLAIN, Transport.TCP, "tcp", PLACE, PLACE),
        ),
        PLACE,
    )
    for each in (WORKLOADS[0], WORKLOADS[3])
)


def configuration(*policies: AuthorizationPolicy) -> Configuration:
    return Configuration(WORKLOADS, SERVICES, (), "", policies)


def policy(
    *rules: Rule, action: Action = Action.ALLOW, namespace: str = "shop", name: str = "p", **fields: Any
) -> AuthorizationPolicy:
    given_fields = {
        "selector": {}, "services": (), "dry_run": False, "deny_reset": False,
        "unreadable": Unreadable.DENY, "existing": Existing.RESET, **fields,
    }  # fmt: skip
    return AuthorizationPolicy(namespace=namespace, name=name, action=action, rules=rules, source=PLACE, **given_fields)


def rule(*callers: Caller, to: Iterable[Operation] = (), when: Iterable[Condition] = ()) -> Rule:
    return Rule(callers, tuple(to), tuple(when), PLACE)


class Tables:
    """What the kernel would hold, and its walks."""

    def __init__(self, made: PolicyTables) -> None:
        self.made = made
        self.prefixes = {
            ipaddress.IPv6Network((address, length)): number for (length, address), number in made.blocks.items()
        }

    def address_class(self, address: str) -> int:
        parsed = ipaddress.ip_address(address)
        if parsed.version == 4:
            parsed = ipaddress.IPv6Address(bytes(10) + b"\xff\xff" + parsed.packed)
        found = [(each.prefixlen, number) for each, number in self.prefixes.items() if parsed in each]
        return max(found)[1] if found else 0

    def ends(self, destination: Workload, request: Request, *roots: int) -> list[int]:
        """The decisions in which walks at the destination end."""
        target = self.made.destinations[destination.key]
        fields: list[tuple[str, str]] = []
        if request.http is not None:
            fields += zip((":method", ":path", ":authority"), request.http, strict=True)
            fields += request.headers.items()
        call = Call(
            identity=self.made.identities[request.workload.key] if request.workload else 0,
            source=self.address_class(request.source),
            destination=self.address_class(request.destination),
            port=request.port,
            fields=tuple(fields),
        )
        ends = []
        for root in roots:
            end = walk(
                root, target, call,
                lambda node, size, symbol: self.made.edges.get((node, size, symbol)), self.made.nodes.get,
            )  # fmt: skip
            assert end & TERMINAL
            ends.append(end)
        return ends

    def allowed(self, destination: Workload, request: Request, *, dry_run: bool = False) -> bool | None:
        """`dry_run`: as if those policies were in force. None: it is denied, for nobody can tell."""
        target = self.made.destinations.get(destination.key)
        if target is None:
            return True
        roots = target.dry_run if dry_run and target.dry_run else (target.deny, target.allow)
        for end in self.ends(destination, request, *roots):
            if end == IN_DOUBT:
                return None
            if not self.made.decisions[end & ~TERMINAL].allowed:
                return False
        return True

    def audited(self, destination: Workload, request: Request) -> bool | None:
        target = self.made.destinations.get(destination.key)
        if target is None or target.audit is None:
            return False
        (end,) = self.ends(destination, request, target.audit)
        return None if end == IN_DOUBT else self.made.decisions[end & ~TERMINAL].policy is not None


def compiled(*policies: AuthorizationPolicy) -> Tables:
    made = configuration(*policies)
    return Tables(compile_policies(made, compile_tables(made)))


# Random policies, from few words, so that calls meet them.

WORDS = ("/shop.Cart/Add", "/shop.Cart/Get", "/shop.Cart/", "/a", "/a/b", "/a/bb/c", "a", "ab", "", "GET", "POST")
NEAR = (*WORDS, "/shop.Cart/AddAll", "/a//c", "x/shop.Cart/Add", "abab", "b", "A", "/shop.Cart/Add ")
PATHS = (
    *("/shop.Cart/Add", "/shop.Cart/Get", "/shop.Cart/", "/shop.Cart/AddAll", "/a", "/a/b", "/a/bb/c", "/b/a", "/"),
    *("/shop.Cart/Add?all", "/a/b#c", "/a?../b"),
)
NOT_NORMAL = ("", "a", "x/shop.Cart/Add", "/a//c", "/a/./b", "/shop.Cart/Add ", "/%61", "?/a")
TEMPLATES = ("/a/{*}", "/{*}/b", "/{**}", "/a/{*}/c", "/shop.Cart/{*}", "/a/{**}")
BLOCKS = ("10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "0.0.0.0/0", "::/0", "fd00::/8", "fd00:1::/32", "::1/128")
ADDRESSES = ("10.1.2.3", "10.1.2.4", "10.9.9.9", "192.0.2.1", "::1", "fd00:1::5", "fd00::1", "2001:db8::1")
NAMES = ("x-user", "x-role")


def patterns(*more: str) -> st.SearchStrategy[str]:
    words = st.sampled_from(WORDS).filter(bool)
    kinds = [words, words.map(lambda each: each + "*"), words.map(lambda each: "*" + each), st.just("*")]
    if more:
        kinds.append(st.sampled_from(more))
    return st.one_of(*kinds)


def values(choices: st.SearchStrategy[str]) -> st.SearchStrategy[Values]:
    some = st.lists(choices, max_size=3).map(tuple)
    return st.one_of(st.just(Values()), st.builds(Values, some, st.just(())), st.builds(Values, some, some))


def written(choices: st.SearchStrategy[str]) -> st.SearchStrategy[Values]:
    return values(choices).filter(bool)


PRINCIPALS = st.sampled_from(
    ("*", "cluster.local/ns/shop/sa/web", "cluster.local/ns/shop/*", "*/sa/default", "cluster.local/ns/bank/sa/web")
)
NAMESPACES = st.sampled_from(("shop", "bank", "b*", "*", "*op"))
PORTS = values(st.sampled_from((str(HTTP), str(PLAIN), "9")))
CALLERS = st.builds(
    Caller,
    principals=values(PRINCIPALS),
    namespaces=values(NAMESPACES),
    service_accounts=values(st.sampled_from(("shop/web", "shop/cart", "bank/default"))),
    trust_domains=values(st.sampled_from(("cluster.local", "*", "other"))),
    ip_blocks=values(st.sampled_from(BLOCKS)),
    remote_ip_blocks=values(st.sampled_from(BLOCKS)),
)
HOSTS = st.sampled_from(("cart", "Cart.shop", "*.shop", "cart*", "*"))
OPERATIONS = st.builds(
    Operation,
    hosts=values(HOSTS),
    ports=PORTS,
    methods=values(st.sampled_from(("GET", "POST", "P*", "*"))),
    paths=values(patterns(*TEMPLATES)),
)
CONDITIONS = st.one_of(
    st.builds(Condition, st.sampled_from([f"request.headers[{each}]" for each in NAMES]), written(patterns())),
    st.builds(Condition, st.just("request.headers[host]"), written(HOSTS)),
    st.builds(
        Condition, st.sampled_from(("source.ip", "remote.ip", "destination.ip")), written(st.sampled_from(BLOCKS))
    ),
    st.builds(Condition, st.just("source.namespace"), written(NAMESPACES)),
    st.builds(Condition, st.just("source.principal"), written(PRINCIPALS)),
    st.builds(Condition, st.just("destination.port"), PORTS.filter(bool)),
)


def few(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(strategy, max_size=2).map(tuple)


RULES = st.builds(Rule, few(CALLERS), few(OPERATIONS), few(CONDITIONS), st.just(PLACE))


@st.composite
def policies(draw: st.DrawFn) -> tuple[AuthorizationPolicy, ...]:
    found = []
    for number in range(draw(st.integers(1, 4))):
        action = draw(st.sampled_from(Action))
        reach: dict[str, Any] = draw(
            st.sampled_from(({}, {"selector": {"app": "cart"}}, {"selector": {"app": "web"}}, {"services": ("cart",)}))
        )
        found.append(
            policy(
                *draw(st.lists(RULES, max_size=3)),
                action=action,
                dry_run=action is not Action.AUDIT and draw(st.sampled_from((False, False, True))),
                namespace=draw(st.sampled_from(("shop", "shop", "bank", "istio-system"))),
                name=f"p{number}",
                **reach,
            )
        )
    return tuple(found)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    port = draw(st.sampled_from((HTTP, HTTP, PLAIN, 9)))
    http = None
    headers = {}
    if port == HTTP:
        http = (
            draw(st.sampled_from(("GET", "POST", "PUT"))),
            draw(st.sampled_from((*PATHS, *NOT_NORMAL))),
            draw(st.sampled_from(("cart", "cart.shop", "CART", "web.shop", "x.SHOP", "cart:80"))),
        )
        headers = draw(st.dictionaries(st.sampled_from((*NAMES, "x-other")), st.sampled_from(NEAR), max_size=3))
    return Request(
        draw(st.sampled_from((None, *WORKLOADS))),
        draw(st.sampled_from(ADDRESSES)),
        draw(st.sampled_from(ADDRESSES)),
        port,
        http,
        headers,
    )


@settings(max_examples=EXAMPLES, deadline=None)
@given(policies(), st.lists(requests(), min_size=20, max_size=20))
def test_verdicts_are_istios(found: tuple[AuthorizationPolicy, ...], asked: list[Request]) -> None:
    tables, semantics = compiled(*found), Semantics(configuration(*found))
    for request in asked:
        for destination in (WORKLOADS[0], WORKLOADS[1], WORKLOADS[3]):
            if destination is WORKLOADS[1] and request.http is not None:
                continue  # it declares no port
            readings = [request]
            if request.http is not None and request.http[1] in NOT_NORMAL:
                # Envoy changes such a path or refuses it; what does not depend on it is the same with any.
                method, _, host = request.http
                readings = [replace(request, http=(method, each, host)) for each in PATHS]
            for dry_run in (False, True):
                found_out = tables.allowed(destination, request, dry_run=dry_run)
                if found_out is None:
                    assert len(readings) > 1
                    assert semantics.asks_for_paths(destination, request.port)
                    continue
                wanted = {semantics.allowed(destination, each, dry_run=dry_run) for each in readings}
                assert {found_out} == wanted, (destination.key, request)
            audited = tables.audited(destination, request)
            if audited is not None:
                assert {audited} == {semantics.audited(destination, each) for each in readings}


# As the server's kernel side cuts and doubts it.
PLAIN_PATHS: Mapping[bytes, bytes | None] = {
    b"/t.T/Good": b"/t.T/Good",
    b"/": b"/",
    b"/t.T/": b"/t.T/",
    b"/t.T/Good?x=1": b"/t.T/Good",
    b"/t.T/Good#f": b"/t.T/Good",
    b"/t.T/Good?a=%42/../ \\//": b"/t.T/Good",
    b"/?": b"/",
    b"/a?b#c?d": b"/a",
    b"/.a/a./...": b"/.a/a./...",
    b"/a/..b": b"/a/..b",
    b"/!~": b"/!~",
    b"": None,
    b"t.T/Good": None,
    b"*": None,
    b"?/t.T/Good": None,
    b"http://a/t.T/Good": None,
    b"/t.T/%42ad": None,
    b"/t.T/Bad;x": None,
    b"/t.T/Good?a;b": b"/t.T/Good",
    b"/t.T\\Bad": None,
    b"//t.T/Bad": None,
    b"/t.T//Bad": None,
    b"/t.T//": None,
    b"/.": None,
    b"/..": None,
    b"/./t.T/Bad": None,
    b"/t.T/../t.T/Bad": None,
    b"/t.T/.": None,
    b"/t.T/..?x": None,
    b"/t.T/.#x": None,
    b"/t.T/Bad ": None,
    b"/t.T/Bad\n": None,
    b"/t.T/Bad\0": None,
    b"/t.T/B\x7fd": None,
    "/t.T/B\u00e4d".encode(): None,
    b"/t.T/\xff": None,
}


@pytest.mark.parametrize("written", PLAIN_PATHS, ids=ascii)
def test_paths_that_servers_read_alike(written: bytes) -> None:
    assert plain_path(written) == PLAIN_PATHS[written]


Field = tuple[str, str]
LONG = "a" * 1025
BAD = rule(to=[Operation(paths=Values(("/t.T/Bad",)))])
EVIL = rule(to=[Operation(paths=Values(("/t.T/*",)), hosts=Values(("Evil.x",)))])
EVE = rule(to=[Operation(paths=Values(("/t.T/*",)))], when=[Condition("request.headers[x-user]", Values(("eve",)))])


# What DENY rules make of the fields of a call: whether it is allowed, and why nobody can tell.
@pytest.mark.parametrize(
    ("denied", "fields", "allowed", "doubt"),
    [
        (BAD, [(":path", "/t.T/Bad")], False, None),
        (BAD, [(":path", "/t.T/Bad?x")], False, None),
        (BAD, [(":path", "/t.T/%42ad")], None, "path_not_normal"),
        (BAD, [(":path", "/" + "a" * 1023)], True, None),
        (BAD, [(":path", "/?" + "a" * 1023)], None, "header_too_long"),
        (BAD, [(":path", "/t.T/Good"), (":path", "/t.T/Good")], None, "header_repeated"),
        # What nobody asks for, or the diagram does not come to, is in no doubt.
        (BAD, [(":path", "/t.T/Good"), (":authority", LONG), ("x-user", LONG), ("x-user", "a")], True, None),
        (EVE, [(":path", "/a"), ("x-user", LONG)], True, "header_too_long"),
        (EVE, [(":path", "/t.T/Good"), ("x-user", LONG)], None, "header_too_long"),
        (EVE, [(":path", "/t.T/Good"), ("x-user", "ann"), ("x-user", "ann")], None, "header_repeated"),
        # The first doubt is the one that the kernel names.
        (EVE, [("x-user", LONG), (":path", "t.T/Good")], None, "header_too_long"),
        # `host` is what :authority is, in letters of any size.
        (EVIL, [(":path", "/t.T/Good"), (":authority", "EVIL.x")], False, None),
        (EVIL, [(":path", "/t.T/Good"), ("host", "eviL.X")], False, None),
        (EVIL, [(":path", "/t.T/Good"), ("host", "good.x"), (":authority", "good.x")], None, "header_repeated"),
        (EVIL, [(":path", "/t.T/Good"), ("host", "\udcff")], True, None),
        (EVIL, [(":path", "/t.T/Good"), (":authority", "a@evil.x")], None, "host_not_normal"),
    ],
)
def test_doubts(denied: Rule, fields: list[Field], allowed: bool | None, doubt: str | None) -> None:
    made = compiled(policy(denied, action=Action.DENY)).made
    target = made.destinations["shop/cart"]

    def edge(*key: int) -> int | None:
        return made.edges.get(key)

    call = Call(port=HTTP, fields=((":method", "POST"), *fields))
    end = walk(target.deny, target, call, edge, made.nodes.get)
    assert (None if end == IN_DOUBT else made.decisions[end & ~TERMINAL].allowed) is allowed
    assert take_fields(target, call, edge, made.nodes.get).doubt == doubt


def test_the_header_host_is_no_header_of_its_own() -> None:
    """It is among the hosts, compared without regard to the case of ASCII letters, and not one of the 16 headers."""
    when = [Condition("request.headers[host]", Values(("Evil.x", "\u212aelvin.x")))]
    others = [Condition(f"request.headers[x-{number}]", Values(("a",))) for number in range(16)]
    made = compiled(policy(rule(when=when), rule(when=others), action=Action.DENY))

    def allowed(host: str) -> bool | None:
        return made.allowed(WORKLOADS[0], Request(None, "::1", "::1", HTTP, ("POST", "/a/b", host)))

    assert [allowed(each) for each in ("evil.x", "EVIL.X", "\u212aELVIN.x")] == [False] * 3
    assert [allowed(each) for each in ("good.x", "kelvin.x")] == [True] * 2


def by_path(count: int) -> list[Rule]:
    return [rule(to=[Operation(paths=Values((f"/pkg.Service{number}/Method{number}",)))]) for number in range(count)]


def by_header(count: int) -> list[Rule]:
    return [rule(when=[Condition("request.headers[x-user]", Values((f"user-{number}",)))]) for number in range(count)]


def by_both(count: int) -> list[Rule]:
    return [
        rule(
            Caller(namespaces=Values(("shop",))),
            to=[Operation(paths=Values((f"/pkg.Service{number % 100}/M",)))],
            when=[Condition("request.headers[x-user]", Values((f"user-{number}",)))],
        )
        for number in range(count)
    ]


def by_prefix(count: int) -> list[Rule]:
    """Many rules that ask for the same of a path, and for different headers."""
    return [
        rule(
            to=[Operation(paths=Values(("/pkg.*",)))],
            when=[Condition("request.headers[x-user]", Values((f"user-{number}",)))],
        )
        for number in range(count)
    ]


def by_absence(count: int) -> list[Rule]:
    return [
        rule(
            to=[Operation(paths=Values((f"/pkg.Service{number}/M",)))],
            when=[Condition("request.headers[x-user]", Values((), ("mallory",)))],
        )
        for number in range(count)
    ]


def by_suffix(count: int) -> list[Rule]:
    return [rule(to=[Operation(hosts=Values((f"*.tenant{number}.shop",)))]) for number in range(count)]


def split(rules: list[Rule], action: Action = Action.ALLOW) -> list[AuthorizationPolicy]:
    """No policy has more than 512 rules."""
    return [
        policy(*rules[start : start + 512], action=action, name=f"{action.lower()}-{start:07}")
        for start in range(0, len(rules), 512)
    ]


SHAPES = {
    "paths": lambda count: split(by_path(count)),
    "headers": lambda count: split(by_header(count)),
    "both": lambda count: split(by_both(count)),
    "mixed": lambda count: split(by_path(count // 2)) + split(by_both(count // 2), Action.DENY),
    "overlapping": lambda count: split(by_path(count // 2) + by_both(count // 2)),
    "prefixes": lambda count: split(by_both(count // 2) + by_prefix(count // 2)),
    "suffixes": lambda count: split(by_suffix(count)),
    "absence": lambda count: split(by_absence(count)),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_tables_grow_with_the_rules(shape: str) -> None:
    sizes = []
    for count in (500, 5000):
        made = compiled(*SHAPES[shape](count)).made
        sizes.append(len(made.nodes) + len(made.edges))
    assert sizes[1] <= 11 * sizes[0]


def test_equal_destinations_share_their_tables() -> None:
    made = compiled(policy(*by_path(10))).made
    assert made.destinations["shop/web"] is made.destinations["shop/web2"]
    assert "bank/ledger" not in made.destinations


def test_no_node_without_a_choice() -> None:
    made = compiled(*SHAPES["overlapping"](300)).made
    for node, (attribute, fallback) in made.nodes.items():
        targets = [target for (start, size, _), target in made.edges.items() if start == node and size == 0]
        if attribute:
            assert targets
            assert all(target != fallback for target in targets)


def test_a_connection_is_decided_without_its_calls() -> None:
    """What no call can change is known when the connection is made."""
    refused = rule(Caller(ip_blocks=Values(("10.0.0.0/8",))))
    mixed = rule(Caller(namespaces=Values(("shop",))), to=[Operation(paths=Values(("/a",)))])
    tables = compiled(policy(mixed, refused, action=Action.DENY))
    target = tables.made.destinations["shop/cart"]

    def ends_at(source: str) -> int:
        call = Call(tables.made.identities["shop/web"], tables.address_class(source), 0, HTTP)
        edges = tables.made.edges
        return walk(target.deny, target, call, lambda *key: edges.get(key), tables.made.nodes.get)

    assert ends_at("10.0.0.1") & TERMINAL
    assert not ends_at("192.0.2.1") & TERMINAL


def test_too_many_headers_are_refused() -> None:
    rules = [rule(when=[Condition(f"request.headers[x-{number}]", Values(("a",)))]) for number in range(17)]
    with pytest.raises(TooComplexError, match="17 different headers") as caught:
        compiled(policy(*rules))
    assert "policies.yaml:7" in str(caught.value)
