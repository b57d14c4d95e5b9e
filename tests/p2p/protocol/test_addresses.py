"""What an address says, and how far it holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.errors import LocalError
from p2p.protocol.addresses import Address, Reach, parse, parse_full, reach_of, reach_of_ip, socket_address

RELAY = "12D3KooWBviqU27DnTcAzg98rdBe3oFHYTxFv2q3qsDFttszHrxW"


@pytest.mark.parametrize(
    ("ip", "reach"),
    [
        ("127.0.0.1", Reach.MACHINE),
        ("127.8.8.8", Reach.MACHINE),
        ("::1", Reach.MACHINE),
        ("::ffff:127.0.0.1", Reach.MACHINE),
        ("10.1.2.3", Reach.SITE),
        ("172.31.0.1", Reach.SITE),
        ("192.168.1.1", Reach.SITE),
        ("169.254.169.254", Reach.SITE),  # where clouds keep their secrets
        ("100.64.0.1", Reach.SITE),  # a provider's own network
        ("198.18.0.1", Reach.SITE),
        ("203.0.113.9", Reach.SITE),  # for documentation
        ("fd00::1", Reach.SITE),
        ("fe80::1%eth0", Reach.SITE),
        ("::ffff:192.168.1.1", Reach.SITE),
        ("8.8.8.8", Reach.WORLD),
        ("2001:4860:4860::8888", Reach.WORLD),
        ("::ffff:8.8.8.8", Reach.WORLD),
        ("0.0.0.0", None),
        ("::", None),
        ("224.0.0.251", None),
        ("ff02::fb", None),
        ("255.255.255.255", None),
    ],
)
def test_how_far_an_address_holds(ip: str, reach: Reach | None) -> None:
    assert reach_of_ip(ip) is reach


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("/ip4/8.8.8.8/tcp/4001", Address("ip4", "8.8.8.8", 4001)),
        ("/ip6/::1/tcp/0", Address("ip6", "::1", 0)),
        ("/dns4/relay.example/tcp/443", Address("dns4", "relay.example", 443)),
        (f"/ip4/8.8.8.8/tcp/4001/p2p/{RELAY}/p2p-circuit", Address("ip4", "8.8.8.8", 4001, RELAY)),
    ],
)
def test_an_address_is_read_and_written(text: str, address: Address) -> None:
    assert parse(text) == address
    assert str(address) == text
    assert parse_full(address.of("peer"), "peer") == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "junk",
        "/ip4/8.8.8.8",
        "/ip4/8.8.8.8/udp/4001/quic-v1",
        "/ip4/8.8.8.8/tcp/65536",
        "/ip4/8.8.8.8/tcp/x",
        "/ip4/8.8.8/tcp/1",
        "/ip4/::1/tcp/1",
        "/ip6/8.8.8.8/tcp/1",
        "/ip6/fe80::1%eth0/tcp/1",
        "/dns/a b/tcp/1",
        "/ip4/8.8.8.8/tcp/1/ws",
        "/p2p-circuit",
        f"/ip4/8.8.8.8/tcp/1/p2p/{RELAY}",
        f"/ip4/8.8.8.8/tcp/1/p2p/{RELAY}/p2p-circuit/p2p/{RELAY}/p2p-circuit",
        "/ip4/8.8.8.8/tcp/1/p2p/0OIl/p2p-circuit",
        "/ip4/8.8.8.8/tcp/1\n",
        "/ip4/8.8.8.8/tcp/\u0661",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(LocalError):
        parse(text)


def test_one_address_has_one_form() -> None:
    assert parse("/ip6/2001:DB8:0::1/tcp/1") == parse("/ip6/2001:db8::1/tcp/1")


def test_an_address_of_somebody_else_is_refused() -> None:
    with pytest.raises(LocalError, match="does not end in"):
        parse_full("/ip4/8.8.8.8/tcp/1/p2p/one", "another")


@given(st.text())
def test_any_text_is_an_address_or_refused(text: str) -> None:
    try:
        address = parse(text)
    except LocalError:
        return
    assert parse(str(address)) == address
    reach_of(address)


@given(st.ip_addresses(), st.integers(1, 65535))
def test_a_sockets_address_is_read_back(ip: object, port: int) -> None:
    address = socket_address(str(ip), port)
    assert parse(str(address)) == address
    assert reach_of(address) is reach_of_ip(str(ip))
