"""The simulator: the same protocol cores under a virtual clock."""
