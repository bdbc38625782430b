"""Qdrant: its gRPC and REST messages, failures and Index client.

codec     QdrantDialect, which ties the rest together
methods   the operations, both transports
schema    the protobuf fields that matter, by name and number
search, write, read    gRPC requests; wire_slots: how a vector stands in them
answers   gRPC answers
rest      JSON requests and answers; rest_slots: how a vector stands in them
others, retarget    methods without vectors; any request led to another collection (reading ties it to what follows)
searching, hits, rest_searching    plain searches asked otherwise, and their hits in another answer
writing   what writes and schema calls mean to a migration: touches and rest_touches say which points, conditions and
          rest_conditions hold a filter to points that were listed, owners tell whose a vector is
failure   Qdrant's own form of an error
index     QdrantIndex, for background work, with points and index_settings; imported by name only, since it is heavy
"""

from .codec import QdrantDialect

__all__ = ["QdrantDialect"]
