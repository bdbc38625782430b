"""What is asked of one Envoy over its own admin socket."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import httpx

_REQUESTS = re.compile(r"^cluster\.(.+)\.upstream_rq_(?:active|pending_active): (\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class EnvoyAdmin:
    """One Envoy's admin interface; every method raises httpx.HTTPError when it does not answer."""

    socket: Path

    async def ask(self, method: str, path: str) -> httpx.Response:
        """Any request."""
        # verify=False: there is no TLS on a socket, and loading the authorities costs more than the question.
        transport = httpx.AsyncHTTPTransport(uds=str(self.socket), verify=False, trust_env=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://envoy", timeout=5.0) as client:
            return await client.request(method, path)

    async def find_untaken(self, resources: Iterable[str], version: str) -> list[str]:
        """Those of these resources that are not served in a version yet: "cluster_manager.cds", "http.X.rds.X"."""
        stats = (await self.ask("GET", "/stats?filter=version_text|update_rejected")).text
        return [one for one in resources if f'{one}.version_text: "{version}"\n' not in stats]

    async def count_requests(self, clusters: Collection[str]) -> int:
        """Requests under way in clusters, those that wait for a connection too; an unknown cluster has none."""
        stats = (await self.ask("GET", "/stats?filter=upstream_rq_(active|pending_active)")).text
        return sum(int(count) for name, count in _REQUESTS.findall(stats) if name in clusters)


def all_envoys(run_dir: Path) -> list[EnvoyAdmin]:
    """The Envoys of a run directory, those included that are just being started again."""
    return [EnvoyAdmin(path) for path in sorted(run_dir.glob("admin-*.sock"))]
