"""The log of the supervisor and of every worker: standard error, in the form the configuration asks for."""

from __future__ import annotations

import logging
import sys

import orjson

from .config import Log


class _JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        stated = {"time": self.formatTime(record), "level": record.levelname, "logger": record.name}
        stated["message"] = record.getMessage()
        if record.exc_info:
            stated["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(stated).decode()


def start_logging(settings: Log) -> None:
    """Write the log to standard error as the configuration says."""
    stream = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    stream.setFormatter(_JsonLines() if settings.format == "json" else text)
    logging.basicConfig(level=settings.level.upper(), handlers=[stream], force=True)
    for talker in ("httpx", "watchfiles", "openai"):  # each says at "info" what it was asked to do
        logging.getLogger(talker).setLevel(logging.WARNING)
