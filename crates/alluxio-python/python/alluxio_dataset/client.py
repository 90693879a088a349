"""Load jobs: asking a cluster to load a path into its workers' caches, and how far it is."""

from __future__ import annotations

import enum
import json
import time
from typing import Any, Mapping, NamedTuple, Optional, Union

from . import _native, logs
from .filesystem import AlluxioFileSystem
from .options import Hosts
from .progress import Bar

#: How often a load that is waited for is asked for.
_POLL_SECONDS = 1.0

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


class LoadState(enum.Enum):
    """Where a load stands."""

    RUNNING = "RUNNING"
    VERIFYING = "VERIFYING"
    STOPPED = "STOPPED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"

    @property
    def is_final(self) -> bool:
        """Whether nothing changes any more."""
        return self in (LoadState.STOPPED, LoadState.SUCCEEDED, LoadState.FAILED)


class LoadProgress(NamedTuple):
    """How far a load is: the state, and what the cluster tells of it.

    ``content`` has ``message``, for people, and, where the cluster tells numbers, ``progress``:
    ``filesTotal``, ``filesDone``, ``bytesTotal``, ``bytesDone``, ``failureCount``, ``failures`` (``path``,
    ``reason``), ``filesSkipped``, ``bytesSkipped``, ``listingDone``, ``elapsedMs``, ``bytesPerSecond``,
    ``etaSeconds``, ``workers``.
    """

    state: LoadState
    content: Mapping[str, Any]

    @property
    def counts(self) -> Mapping[str, Any]:
        """The numbers; empty where the cluster tells none."""
        return self.content.get("progress") or {}


class AlluxioClient:
    """The load jobs of a cluster.

    >>> client = AlluxioClient(worker_hosts="worker-0,worker-1")
    >>> client.submit_load("s3://data/train", verify=True)
    True
    >>> state, content = client.load_progress("s3://data/train")
    >>> state
    <LoadState...>
    >>> client.load("s3://data/train")            # submits, shows a bar, waits
    LoadProgress(state=<LoadState.SUCCEEDED: 'SUCCEEDED'>, content={...})
    >>> client.stop_load("s3://data/train")       # nothing is at work any more
    False

    The arguments are those of :class:`AlluxioFileSystem`. Loads are the workers' work: no credentials of
    the store are needed here.
    """

    def __init__(
        self,
        etcd_hosts: Hosts = None,
        worker_hosts: Hosts = None,
        options: Optional[Mapping[str, Any]] = None,
        logger: logs.Logger = None,
        concurrency: int = 64,
        etcd_port: int = 2379,
        worker_http_port: int = 28080,
        *,
        cluster_name: Optional[str] = None,
    ):
        self._arguments: dict[str, Any] = {
            "etcd_hosts": etcd_hosts,
            "worker_hosts": worker_hosts,
            "options": options,
            "logger": logger,
            "concurrency": concurrency,
            "etcd_port": etcd_port,
            "worker_http_port": worker_http_port,
            "cluster_name": cluster_name,
        }
        self._file_systems: dict[str, AlluxioFileSystem] = {}
        # What is wrong with the arguments is told now.
        self._of("file:///")

    def __reduce__(self):
        return _client, (self._arguments,)

    def submit_load(
        self,
        path: str,
        *,
        verify: bool = False,
        bandwidth: Union[int, str, None] = None,
        partial_listing: bool = False,
        metadata_only: bool = False,
        skip_if_exists: bool = False,
        file_filter: Optional[str] = None,
    ) -> bool:
        """Starts to load a path, or joins the job that loads it. Returns whether the cluster took it.

        ``verify`` checks each file afterwards; ``bandwidth`` is the most that one worker reads from
        the store in a second (``"200MB"``, or bytes); ``partial_listing`` begins while the listing
        runs; ``metadata_only`` loads no pages; ``skip_if_exists`` leaves out what is cached in the
        same version; ``file_filter`` is a regular expression for the paths that are loaded.
        """
        options = {
            "verify": verify,
            "bandwidth_bytes_per_second": _bytes("bandwidth", bandwidth),
            "partial_listing": partial_listing,
            "metadata_only": metadata_only,
            "skip_if_exists": skip_if_exists,
            "file_filter": file_filter,
        }
        answer = json.loads(self._call("submit_load", path, json.dumps(options)))
        if not answer["success"]:
            self._of(path).logger.warning("load of %s: %s", path, answer.get("message"))
        return bool(answer["success"])

    def load_progress(self, path: str, *, verbose: bool = True) -> LoadProgress:
        """How far a load is; with the failed files where ``verbose``.

        A path that was never loaded raises ``FileNotFoundError``.
        """
        content = json.loads(self._call("load_progress", path, verbose))
        if content.pop("is_unknown"):
            raise FileNotFoundError(2, f"no load of this path: {content['message']}", path)
        return LoadProgress(LoadState(content.pop("state")), content)

    def stop_load(self, path: str) -> bool:
        """Ends a load; what is loaded stays. Returns whether one was at work."""
        return bool(json.loads(self._call("stop_load", path))["success"])

    def load(
        self,
        path: str,
        timeout: Optional[float] = None,
        *,
        progress: Optional[bool] = None,
        **options: Any,
    ) -> LoadProgress:
        """Loads a path and waits for the end. Options are those of :meth:`submit_load`.

        ``progress`` shows a bar, by default where somebody can see it: in a terminal or a notebook.
        After ``timeout`` seconds ``TimeoutError`` is raised; the load goes on. So does it after Ctrl-C.
        """
        if not self.submit_load(path, **options):
            raise OSError(5, "the cluster did not take the load; see the log", path)
        deadline = None if timeout is None else time.monotonic() + timeout
        with Bar(f"load {path}", progress) as bar:
            while True:
                seen = self.load_progress(path)
                bar.show(seen.state.name, seen.counts)
                if seen.state.is_final:
                    return seen
                left = _POLL_SECONDS if deadline is None else deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(110, f"the load is {seen.state.name} and goes on", path)
                time.sleep(min(_POLL_SECONDS, left))

    def _call(self, method: str, path: str, *arguments: Any) -> str:
        return self._of(path)._store.call(method, path, *arguments)

    def _of(self, path: str) -> AlluxioFileSystem:
        scheme, mark, _rest = path.partition("://")
        if not mark:
            raise ValueError(f"{path}: give the full URI of the store, such as s3://bucket/train")
        if scheme not in _native.schemes():
            raise ValueError(f"{path}: loads are of {', '.join(_native.schemes())}")
        if scheme not in self._file_systems:
            self._file_systems[scheme] = AlluxioFileSystem(
                target_protocol=scheme, target_options=_needed(scheme), **self._arguments
            )
        return self._file_systems[scheme]


def _client(arguments):
    return AlluxioClient(**arguments)


def _needed(scheme):
    """What the configuration wants of stores without a default endpoint; loads never use it."""
    return {"endpoint_url": "http://unused"} if scheme in ("oss", "cos", "cosn", "obs") else {}


def _bytes(name: str, size: Union[int, str, None]) -> Optional[int]:
    if size is None or isinstance(size, int):
        return size
    text = size.strip().upper().removesuffix("/S").removesuffix("B").removesuffix("I")
    number, unit = (text[:-1], text[-1]) if text[-1:].isalpha() else (text, "")
    try:
        return int(float(number) * _UNITS[unit])
    except (KeyError, ValueError):
        raise ValueError(f"{name} `{size}` is not a size: write bytes or such as 200MB") from None
