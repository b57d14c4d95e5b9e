"""The protocol's pure cores, and nothing else: no I/O, no clock, no randomness that was not given."""
