"""A port of the router's, from a small router that speaks just enough UPnP, on loopback."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import trio
from loopback import a_host, until

from p2p.net import reachable, upnp
from p2p.protocol.addresses import Address, parse

SERVICE = "urn:schemas-upnp-org:service:WANIPConnection:1"
DESCRIPTION = f"""<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0"><device>
<deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType><deviceList><device>
<deviceType>urn:schemas-upnp-org:device:WANDevice:1</deviceType><deviceList><device>
<deviceType>urn:schemas-upnp-org:device:WANConnectionDevice:1</deviceType><serviceList><service>
<serviceType>{SERVICE}</serviceType><serviceId>urn:upnp-org:serviceId:WANIPConn1</serviceId>
<controlURL>/control</controlURL><eventSubURL>/events</eventSubURL><SCPDURL>/service.xml</SCPDURL>
</service></serviceList></device></deviceList></device></deviceList></device></root>"""


class Router:
    """What it forwards, and what it answers."""

    def __init__(self) -> None:
        self.outside = "9.9.9.9"
        self.refuses = False
        self.ports: dict[int, tuple[str, int]] = {}
        self.leases: list[int] = []
        self.description = ""

    def answer(self, action: str, said: dict[str, str]) -> dict[str, str] | None:
        """Its arguments out; `None` for a fault."""
        match action:
            case "GetStatusInfo":
                return {"NewConnectionStatus": "Connected", "NewUptime": "1", "NewLastConnectionError": "ERROR_NONE"}
            case "GetExternalIPAddress":
                return {"NewExternalIPAddress": self.outside}
            case "AddPortMapping" if not self.refuses:
                self.ports[int(said["NewExternalPort"])] = said["NewInternalClient"], int(said["NewInternalPort"])
                self.leases.append(int(said["NewLeaseDuration"]))
                return {}
            case "DeletePortMapping":
                del self.ports[int(said["NewExternalPort"])]
                return {}
        return None


@contextmanager
def a_router() -> Iterator[Router]:
    router = Router()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def do_GET(self) -> None:
            self._send(200, DESCRIPTION)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            action = self.headers["SOAPAction"].strip('"').rpartition("#")[2]
            answer = router.answer(action, dict(re.findall(r"<(New\w+)>([^<]*)</", body)))
            if answer is None:
                self._send(500, "<s:Fault><errorCode>718</errorCode></s:Fault>")
                return
            fields = "".join(f"<{name}>{value}</{name}>" for name, value in answer.items())
            inner = f'<u:{action}Response xmlns:u="{SERVICE}">{fields}</u:{action}Response>'
            self._send(200, f"<s:Envelope><s:Body>{inner}</s:Body></s:Envelope>")

        def _send(self, status: int, text: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "text/xml")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        router.description = f"http://127.0.0.1:{server.server_address[1]}/root.xml"
        try:
            yield router
        finally:
            server.shutdown()
            thread.join()


async def test_a_port_is_mapped_renewed_and_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upnp, "RENEW_S", 0.05)
    told: list[Address | None] = []
    with a_router() as router:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(upnp.keep_mapped, 4001, told.append, router.description)
            await until(lambda: len(told) >= 3)
            assert router.ports == {4001: ("127.0.0.1", 4001)}
            nursery.cancel_scope.cancel()
        assert router.ports == {}
        assert set(router.leases) == {upnp.LEASE_S}
    assert set(told) == {parse("/ip4/9.9.9.9/tcp/4001")}


async def test_a_router_that_refuses_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upnp, "RETRY_S", 0.05)
    told: list[Address | None] = []
    with a_router() as router:
        router.refuses = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(upnp.keep_mapped, 4001, told.append, router.description)
            await until(lambda: len(told) >= 2)
            assert set(told) == {None}
            router.refuses, router.outside = False, "junk"
            await until(lambda: len(told) >= 4)
            assert set(told) == {None}
            router.outside = "9.9.9.9"
            await until(lambda: told[-1] == parse("/ip4/9.9.9.9/tcp/4001"))
            nursery.cancel_scope.cancel()


async def test_a_host_that_asks_for_it_announces_the_port_and_gives_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    with a_router() as router:
        monkeypatch.setattr(reachable, "keep_mapped", partial(upnp.keep_mapped, router=router.description))
        async with a_host("without"):
            assert router.ports == {}
        async with a_host("provider", upnp=True) as host:
            (ours,) = host.listening()
            port = parse(ours.rpartition("/p2p/")[0]).port
            await until(lambda: len(host.addresses()) == 2)
            assert host.addresses() == (f"/ip4/9.9.9.9/tcp/{port}/p2p/{host.peer}", ours)
            assert router.ports == {port: ("127.0.0.1", port)}
        assert router.ports == {}
