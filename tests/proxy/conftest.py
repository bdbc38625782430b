"""What tests of the engine share: a recording upstream, and Crossfade running in front of it."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from crossfade.adapters.base import Adapter
from tests.proxy.recording import Recorders
from tests.proxy.serving import Serving, start_serving
from tests.proxy.toy_adapters import save_toy

SETTINGS = """
models:
  old: {dim: 16}
  new: {dim: 24}
  model-a: {dim: 24, encoder: {python: "tests.proxy.encoding_function:encode"}}
  wide: {dim: 32}
collections:
  docs é: &docs
    index_model: old
    adapters: {new: adapters/new, model-a: adapters/model-a}
    fields: {declared: {declares: new}}
  looked-up: *docs
  docs: {index_model: old, query_model: new, adapters: {new: adapters/new}}
detect: {clients: {models: {search-ui: new, "other": wide}}}
limits: {body: 4MiB}
"""


@pytest.fixture(scope="session")
def recorders() -> Iterator[Recorders]:
    """The recording upstream of the session."""
    started = Recorders.start()
    yield started
    started.stop()


@pytest.fixture
def recorded(recorders: Recorders) -> Recorders:
    """The recording upstream, with nothing recorded."""
    recorders.reset()
    return recorders


@pytest.fixture(scope="session")
def proxy_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the session's proxy has its configuration and adapters."""
    return tmp_path_factory.mktemp("proxy")


@pytest.fixture(scope="session")
def adapter(proxy_directory: Path) -> Adapter:
    """The adapter from new to old; the one from model-a holds the same maps."""
    save_toy(proxy_directory / "adapters" / "model-a", "model-a")
    return save_toy(proxy_directory / "adapters" / "new")


@pytest.fixture(scope="session")
def proxy(recorders: Recorders, proxy_directory: Path, adapter: Adapter) -> Iterator[Serving]:
    """Crossfade in front of the recording upstream; tests leave its configuration as it is."""
    upstream = f'grpc: "{recorders.grpc.address}", rest: "{recorders.rest.address}"'
    with start_serving(proxy_directory, upstream, SETTINGS) as serving:
        yield serving


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put the end of the log of every Crossfade a test used under its failure."""
    report = yield
    if report.failed:
        for name, value in getattr(item, "funcargs", {}).items():
            if isinstance(value, Serving):
                report.sections.append((f"log of {name}", value.written()[-5000:]))
    return report
