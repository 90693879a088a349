"""The constructor's arguments as the client's configuration.

What comes out is the document of docs/configuration.md, as JSON and without the URI of a dataset: a
session makes one configuration of it for each bucket. Whatever cannot be right is refused here or by
the client when the file system is made, with the name that was probably meant.
"""

from __future__ import annotations

import difflib
import json
from typing import Any, Iterable, Mapping, Optional, Sequence, Union

from . import _native

#: A host, or several: ``"a,b:28081"`` or ``["a", "b:28081"]``.
Hosts = Union[str, Sequence[str], None]

#: Options of fsspec's own file systems that say nothing about the store.
_FSSPEC_ONLY = {
    "asynchronous",
    "auto_mkdir",
    "cache_regions",
    "default_block_size",
    "default_cache_type",
    "default_fill_cache",
    "dircache",
    "listings_expiry_time",
    "loop",
    "max_paths",
    "session",
    "skip_instance_cache",
    "use_listings_cache",
    "version_aware",
}

#: Alluxio's port of workers, as a property of its own clients.
_HTTP_PORT = "alluxio.worker.http.server.port"


def document(
    *,
    target_options: Optional[Mapping[str, Any]],
    etcd_hosts: Hosts,
    etcd_port: int,
    worker_hosts: Hosts,
    worker_http_port: int,
    options: Optional[Mapping[str, Any]],
    cluster_name: Optional[str],
    concurrency: Optional[int],
    fallback_to_ufs_enabled: bool,
    workers_only: bool = False,
    without_workers: bool = False,
) -> str:
    """The configuration's document. ``workers_only`` leaves the store out of it, for a session beside
    a file system of fsspec's; ``without_workers`` leaves out the cluster."""
    options = dict(options or {})
    worker_http_port = _port("worker_http_port", options.pop(_HTTP_PORT, worker_http_port))
    etcd_port = _port("etcd_port", etcd_port)
    fields = _native.option_names()
    check_names("options", options, [*fields, _HTTP_PORT])
    config: dict[str, Any] = {"ufs": {"options": {} if workers_only else _store(target_options)}}
    for name, value in options.items():
        if fields[name].startswith("client."):
            value = _typed(value)
        if name.startswith("alluxio."):
            config[name] = value
        else:
            _insert(config, name, value)
    if concurrency is not None:
        _insert(config, "client.max_inflight_requests", _concurrency(concurrency))
    if cluster_name is not None:
        _insert(config, "cluster.name", cluster_name)
    if workers_only or not fallback_to_ufs_enabled:
        config.pop("alluxio.dora.client.ufs.fallback.enabled", None)
        _insert(config, "client.fallback.policy", "never", replace=True)
    if not without_workers:
        _membership(config, etcd_hosts, etcd_port, worker_hosts, worker_http_port)
    return json.dumps(config)


def check_names(what: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raises ``ValueError`` with the nearest known name for the first that is not known."""
    known = sorted(known)
    for name in given:
        if name in known:
            continue
        nearest = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
        hint = f"; did you mean `{nearest[0]}`?" if nearest else f"; it takes {', '.join(known)}"
        raise ValueError(f"{what} has no `{name}`{hint}")


def _membership(config, etcd_hosts: Hosts, etcd_port, worker_hosts: Hosts, worker_http_port):
    etcd, workers = _hosts(etcd_hosts), _hosts(worker_hosts)
    in_options = "alluxio.etcd.endpoints" in config
    if bool(etcd) + bool(workers) + in_options > 1:
        raise ValueError("give one of etcd_hosts, worker_hosts and alluxio.etcd.endpoints, not two")
    if etcd:
        config["alluxio.etcd.endpoints"] = [_endpoint(host, etcd_port) for host in etcd]
    elif workers:
        listed = [host if _has_port(host) else f"{host}:{worker_http_port}" for host in workers]
        _insert(config, "cluster.membership", {"type": "static", "workers": listed})
    elif not in_options:
        raise ValueError(
            "give etcd_hosts or worker_hosts: the cluster whose workers cache the files. To read "
            "the store directly, use fsspec's own file system for it"
        )


def _hosts(hosts: Hosts) -> list[str]:
    if hosts is None:
        return []
    if isinstance(hosts, str):
        hosts = hosts.split(",")
    hosts = [host.strip() for host in hosts]
    return [host for host in hosts if host]


def _has_port(host: str) -> bool:
    after = host.rsplit("]", 1)[-1] if host.startswith("[") else host
    return ":" in after


def _endpoint(host: str, port: int) -> str:
    scheme, host = host.split("://", 1) if "://" in host else ("http", host)
    return f"{scheme}://{host}" if _has_port(host) else f"{scheme}://{host}:{port}"


def _port(name: str, port: Any) -> int:
    if isinstance(port, str) and port.isdecimal():
        port = int(port)
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
        raise ValueError(f"{name} must be a port, 1 to 65535, and is {port!r}")
    return port


def _concurrency(concurrency: Any) -> int:
    if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
        raise ValueError(f"concurrency must be a positive integer, and is {concurrency!r}")
    return concurrency


def _store(target_options: Optional[Mapping[str, Any]]) -> dict[str, Any]:
    given = dict(target_options or {})
    return {
        name: _plain(value)
        for name, value in given.items()
        if value is not None and name not in _FSSPEC_ONLY
    }


def _typed(value: Any) -> Any:
    """Properties are often texts; the client's fields are numbers and flags."""
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(below) for key, below in value.items() if below is not None}
    return value


def _insert(config: dict, path: str, value: Any, replace: bool = False) -> None:
    *heads, last = path.split(".")
    for head in heads:
        config = config.setdefault(head, {})
    if last in config and not replace:
        raise ValueError(f"`{path}` is given twice: keep one of them")
    config[last] = value
