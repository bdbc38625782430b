"""Whose turn it is in the embedded Milvus: one change at a time, and nothing while rows are moved out of memory.

milvus-lite takes one writer only. It searches the rows it holds in memory by turning all of them into arrays for each
search, twenty times slower than those it has written out and indexed; and while it writes them out, a search that runs
would miss them. So rows are written out a moment after they came, between searches.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import grpc
from milvus_lite.db import MilvusLite

_READS: Final = ("Search", "HybridSearch", "Query", "Describe", "Has", "Show", "Get", "List", "Connect", "Check")
_SETTLE_SECONDS: Final = 0.5
_FEW_ROWS: Final = 200  # searched in memory as fast

log = logging.getLogger("crossfade.embedded")


class Turns(grpc.ServerInterceptor):  # type: ignore[misc,type-arg,unused-ignore]  # grpc's stubs differ in it
    """Lets reads go side by side, changes one after the other, and settles what they left in memory."""

    def __init__(self, db: MilvusLite) -> None:
        self._db = db
        self._writing = threading.Lock()
        self._quiet = threading.Condition()
        self._reads = 0
        self._settling = False
        self._changed = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._settle_always, name="settle", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the settling."""
        self._closing.set()
        self._changed.set()
        self._thread.join()

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        """Have a method wait for its turn."""
        method = continuation(details)
        if method is None or method.unary_unary is None:
            return method
        name = details.method.rpartition("/")[2]
        turn = self._read if name.startswith(_READS) else self._change

        def serve(request: Any, context: Any) -> Any:
            with turn():
                return method.unary_unary(request, context)

        return grpc.unary_unary_rpc_method_handler(serve, method.request_deserializer, method.response_serializer)

    @contextmanager
    def _read(self) -> Iterator[None]:
        with self._quiet:
            self._quiet.wait_for(lambda: not self._settling)
            self._reads += 1
        try:
            yield
        finally:
            with self._quiet:
                self._reads -= 1
                self._quiet.notify_all()

    @contextmanager
    def _change(self) -> Iterator[None]:
        """Whatever is not known to read may change something."""
        with self._writing:
            yield
        self._changed.set()

    def _settle_always(self) -> None:
        while self._changed.wait() and not self._closing.wait(_SETTLE_SECONDS):
            self._changed.clear()
            try:
                self._settle()
            except Exception:
                log.exception("rows in memory could not be written out; they are searched there, slowly")

    def _settle(self) -> None:
        """Write out what is in memory, with no read in between."""
        with self._writing, self._quiet:
            self._settling = True
            self._quiet.wait_for(lambda: self._reads == 0)
            try:
                for database in self._db.list_databases():
                    for name in self._db.list_collections(database):
                        collection = self._db.get_collection(name, database)
                        if collection.count() > _FEW_ROWS:
                            collection.flush()
            finally:
                self._settling = False
                self._quiet.notify_all()
