"""A local TON: the real TVM behind a lite-server, with a faucet and a clock that can be moved."""
