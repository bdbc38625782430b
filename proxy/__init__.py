"""The server: Envoy with Python inside, its configuration, and the command line."""
