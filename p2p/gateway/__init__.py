"""The OpenAI-compatible gateway: HTTP on one side, a `LightPeer` on the other. docs/GATEWAY.md describes it."""
