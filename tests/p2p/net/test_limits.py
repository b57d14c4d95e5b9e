"""InboundLimits that the system's own do not undermine."""

from __future__ import annotations

import pytest

from p2p.net.limits import FILES_FOR_OURSELVES, InboundLimits


@pytest.mark.parametrize("files", [10, 300, 512, 1024, 2048, 4096, 1 << 20])
def test_all_that_may_be_open_at_once_fits(files: int) -> None:
    limits = InboundLimits().within(files)
    assert limits.connections >= 1
    assert limits.handshakes >= 1
    assert limits.connections + 2 * limits.handshakes <= max(8, files - FILES_FOR_OURSELVES)
    assert (limits == InboundLimits()) is (files >= 4096)


def test_a_common_limit_of_1024_files_leaves_most_of_them_to_connections() -> None:
    assert InboundLimits().within(1024).connections == 576
