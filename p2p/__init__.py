"""Bombyx: a peer-to-peer network for private, paid LLM inference."""
