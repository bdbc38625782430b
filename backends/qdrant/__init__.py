"""Qdrant: its gRPC and REST messages, failures and Index client."""
