"""The network seam over libp2p: the only place that imports it."""
