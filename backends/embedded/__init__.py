"""Upstreams that need no server, for the demo, laptops and tests."""
