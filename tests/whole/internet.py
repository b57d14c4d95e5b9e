"""A small internet in network namespaces: public hosts, and homes behind routers that translate addresses.

Nothing of it is connected to the machine's own network. The addresses are public ones, of which nobody here but the
namespaces knows.
"""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Literal, NamedTuple, Self

from processes import Process, Processes

Nat = Literal["cone", "symmetric"]
"""`cone`: one port of the router's for a port inside, whoever is at the other end, who alone may answer. `symmetric`: a
port for each of them, at random."""

_PUBLIC = "11.0.0"
_ROUTER = """
table ip home {{
  counter from_others {{ }}
  chain leaving {{
    type nat hook postrouting priority srcnat;
    oifname "wan" masquerade {ports}
  }}
  chain for_me {{
    type filter hook input priority filter; policy drop;
    iifname "lan" accept
  }}
  chain passing {{
    type filter hook forward priority filter; policy drop;
    ip saddr {others} counter name from_others
    ct state established,related accept
    iifname "lan" accept
  }}
}}
"""


class Unusable(Exception):
    """No such thing can be made here; the text says why."""


class Place(NamedTuple):
    """Where programs run: a namespace, and its address there."""

    namespace: str
    ip: str


class Home(NamedTuple):
    """A place behind a router."""

    inside: Place
    router: Place


class Internet:
    """A context manager. Raises `Unusable` where the system or its tools refuse."""

    def __init__(self) -> None:
        self._prefix = f"bombyx-{secrets.token_hex(3)}"
        self._namespaces: list[str] = []
        self._hosts = 0

    def __enter__(self) -> Self:
        for tool, package in (("ip", "iproute2"), ("nft", "nftables")):
            if shutil.which(tool) is None:
                raise Unusable(f"there is no {tool}: apt-get install {package}")
        try:
            self._core = self._namespace("core")
            _ip("-n", self._core, "link", "add", "bridge", "type", "bridge")
            _ip("-n", self._core, "link", "set", "bridge", "up")
            self.home("probe", "symmetric")
        except Unusable:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for namespace in self._namespaces:
            subprocess.run(["ip", "netns", "delete", namespace], check=False, capture_output=True)

    def host(self, name: str) -> Place:
        """A machine with a public address."""
        place = Place(self._namespace(name), self._next_public(0))
        self._plug(place, "wan")
        return place

    def home(self, name: str, nat: Nat) -> Home:
        """A machine in a home: its own address is private, and its router lets nobody in."""
        router, inside = Place(self._namespace(f"{name}-router"), self._next_public(128)), self._namespace(name)
        self._plug(router, "wan")
        lan = f"192.168.{self._hosts}"
        _ip("link", "add", "lan", "netns", router.namespace, "type", "veth", "peer", "name", "lan", "netns", inside)
        for namespace, number in ((router.namespace, 1), (inside, 2)):
            _ip("-n", namespace, "address", "add", f"{lan}.{number}/24", "dev", "lan")
            _ip("-n", namespace, "link", "set", "lan", "up")
        _ip("-n", inside, "route", "add", "default", "via", f"{lan}.1")
        _inside(router.namespace, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        rules = _ROUTER.format(ports="random" if nat == "symmetric" else "", others=f"{_PUBLIC}.128/25")
        _inside(router.namespace, "nft", "-f", "-", given=rules)
        return Home(Place(inside, f"{lan}.2"), router)

    def bytes_from_other_homes(self, home: Home) -> int:
        """What has come straight from the routers of other homes, and was not turned away."""
        answer = _inside(home.router.namespace, "nft", "--json", "list", "counter", "ip", "home", "from_others")
        counted: int = next(each["counter"]["bytes"] for each in json.loads(answer)["nftables"] if "counter" in each)
        return counted

    def _namespace(self, name: str) -> str:
        namespace = f"{self._prefix}-{name}"
        _ip("netns", "add", namespace)
        self._namespaces.append(namespace)
        _ip("-n", namespace, "link", "set", "lo", "up")
        return namespace

    def _plug(self, place: Place, device: str) -> None:
        port = f"port{self._hosts}"
        _ip("link", "add", device, "netns", place.namespace, "type", "veth", "peer", "name", port, "netns", self._core)
        _ip("-n", self._core, "link", "set", port, "master", "bridge", "up")
        _ip("-n", place.namespace, "address", "add", f"{place.ip}/24", "dev", device)
        _ip("-n", place.namespace, "link", "set", device, "up")

    def _next_public(self, above: int) -> str:
        self._hosts += 1
        return f"{_PUBLIC}.{above + self._hosts}"


class Elsewhere(Processes):
    """Processes that run at a place."""

    def __init__(self, directory: Path, place: Place) -> None:
        directory.mkdir()
        super().__init__(directory)
        self.place = place

    def _start(
        self, command: Sequence[str], stdin: int, environment: Mapping[str, str] = MappingProxyType({})
    ) -> Process:
        return super()._start(["ip", "netns", "exec", self.place.namespace, *command], stdin, environment)


def _ip(*arguments: str) -> str:
    return _run(["ip", *arguments])


def _inside(namespace: str, *command: str, given: str = "") -> str:
    return _run(["ip", "netns", "exec", namespace, *command], given)


def _run(command: Sequence[str], given: str = "") -> str:
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        raise Unusable(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
