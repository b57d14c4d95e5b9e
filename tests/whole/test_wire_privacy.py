"""Everything that client and provider say to each other, seen from the wire between them."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from local import SCRIPTED, Local
from processes import Processes

PROMPT = "Confidential: chrysanthemum Quetzalcoatl eavesdroppers 4929-1234-5678"
IN_CLEAR = (b"/multistream/1.0.0\n", b"/noise\n")  # how the two agree on encryption, before there is any


class Proxy:
    """Passes TCP connections on to a port, and keeps a copy of every byte."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.from_client = bytearray()
        self.from_provider = bytearray()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """After the clients have gone."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def _accept(self) -> None:
        with self._listener, suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._target)) as provider:
            back = threading.Thread(target=self._pass_on, args=(provider, client, self.from_provider), daemon=True)
            back.start()
            self._pass_on(client, provider, self.from_client)
            back.join()

    def _pass_on(self, source: socket.socket, target: socket.socket, copy: bytearray) -> None:
        """One way, to its end."""
        with suppress(OSError):
            while data := source.recv(1 << 16):
                copy += data
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)


@pytest.fixture
def proxy(network: Local) -> Iterator[Proxy]:
    proxy = Proxy(network.provider.port)
    yield proxy
    proxy.close()


def through(proxy: Proxy, network: Local, folder: Path) -> Path:
    """A network file that knows only the provider, and only by the proxy's address."""
    file = json.loads(network.file.read_text())
    file["bootstraps"] = [network.provider.address.replace(f"/{network.provider.port}/", f"/{proxy.port}/")]
    path = folder / "proxied.json"
    path.write_text(json.dumps(file))
    return path


@pytest.mark.slow
def test_neither_prompt_nor_answer_passes_in_clear(
    proxy: Proxy, network: Local, processes: Processes, tmp_path: Path
) -> None:
    file = through(proxy, network, tmp_path)
    home = tmp_path / "me"
    asking = processes.start(
        "p2p.node", "ask", PROMPT, "--model", SCRIPTED, "--faucet", "--network", file, "--home", home
    )
    begun = asking.said(lambda text: text)
    seen = len(proxy.from_provider)
    done = asking.wait()
    assert done.code == 0, done.err
    answer = done.out.strip()

    # The answer came through the proxy: a connection that is there is used, whatever other address is learnt.
    assert len(proxy.from_provider) - seen > len(answer) - len(begun)
    assert len(proxy.from_client) > len(PROMPT)
    for said in (proxy.from_client, proxy.from_provider):
        assert all(words in said for words in IN_CLEAR)  # what is in clear is seen
        assert not [word for word in PROMPT.split() if word.encode() in said]
        assert not [word for word in answer.split() if len(word) > 4 and word.encode() in said]
        assert SCRIPTED.encode() not in said
        assert b"/bombyx/" not in said
