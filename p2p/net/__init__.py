"""The network seam over libp2p: the only place that imports it."""

from p2p.net.unused import spare_libp2p

spare_libp2p()
