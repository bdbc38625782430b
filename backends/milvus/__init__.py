"""Milvus: its gRPC and REST messages and failures.

codec     MilvusDialect, which ties the rest together
methods   the operations, both transports
schema    the protobuf fields that matter, by name and number
forms     numbers as Milvus stores them: float32, float16, bfloat16, int8
slots     where vectors, texts and scores stand in a gRPC message, and how edits go back in
columns   vectors of a FieldData column;  placeholder: those of a search
search, write, read    gRPC requests and answers
rest      JSON requests and answers, v2 and v1; rest_slots: how a vector stands in them
describe  the fields of a collection, and the lengths that clients are told; rest_describe: the same in JSON
reading   requests led to another collection; searching: plain searches asked otherwise; rest_searching: in JSON
cutting   columns cut by row and put together again; hits: those of an answer, exchanged
failure   Milvus's own form of an error
"""

from .codec import MilvusDialect

__all__ = ["MilvusDialect"]
