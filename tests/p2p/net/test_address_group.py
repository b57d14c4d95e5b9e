"""What counts as one address."""

from __future__ import annotations

import pytest

from p2p.net.address_group import address_group


@pytest.mark.parametrize(
    ("ip", "group"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2ff:3::4", "2001:db8:1:200::/56"),
        ("2001:db8:1:200::", "2001:db8:1:200::/56"),
        ("2001:db8:1:300::", "2001:db8:1:300::/56"),
        ("fe80::1%eth0", "fe80::/56"),
        ("", ""),
        ("relay/12D3", "relay/12D3"),
    ],
)
def test_address_groups(ip: str, group: str) -> None:
    assert address_group(ip) == group
