"""What libp2p 0.8.1 imports at its start for QUIC, WebSocket, certificates and metrics, and Bombyx never uses.

It is half of the time until a host is up. pytoniq 0.1.43 imports `requests`, too, to fetch what a network's file has.
While the two are imported, stand-ins take the place of these libraries; whoever imports one of them
afterwards gets the real one. What had been imported before is left as it is.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

UNUSED = frozenset({
    "aioquic",
    "httpcore2",
    "httpx",
    "httpx2",
    "prometheus_client",
    "psutil",
    "requests",
    "service_identity",
    "trio_websocket",
    "zeroconf",
})  # fmt: skip


def spare_libp2p() -> None:
    """Have libp2p imported with stand-ins, by whoever needs it first: much of the seam does not."""
    sys.meta_path.insert(0, _Watch())


class _Watch(MetaPathFinder, Loader):
    """Finds libp2p, once, for whoever imports it first."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "libp2p":
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is not None:
            self._loader, spec.loader = spec.loader, self
        return spec

    def exec_module(self, module: ModuleType) -> None:
        assert self._loader is not None
        assert module.__spec__ is not None
        module.__loader__ = module.__spec__.loader = self._loader
        with kept_out():
            self._loader.exec_module(module)


@contextmanager
def kept_out() -> Iterator[None]:
    """Imports in here get stand-ins for what is unused."""
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in finder.found:
            del sys.modules[name]


class _Finder(MetaPathFinder, Loader):
    def __init__(self) -> None:
        self.found: list[str] = []

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] not in UNUSED or fullname.partition(".")[0] in sys.modules.keys() - self.found:
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def exec_module(self, module: ModuleType) -> None:
        self.found.append(module.__name__)
        vars(module)["__getattr__"] = _stand_in


def _stand_in(name: str) -> type:
    if name.startswith("__"):  # what Python itself looks for, and need not find
        raise AttributeError(name)
    return _StandIn(name, (Exception,), {})


class _StandIn(type):
    """The class of what is taken from such a library: to be inherited from, caught or looked into, but not made."""

    def __getattr__(cls, name: str) -> type:
        return _stand_in(name)

    def __call__(cls, *args: object, **named: object) -> object:
        raise NotImplementedError(f"libp2p was imported without {cls.__name__}, which Bombyx does not use")
