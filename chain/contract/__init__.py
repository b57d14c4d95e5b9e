"""The channel contract: its source, its compiled code, and the cells that go to it and come from it."""
