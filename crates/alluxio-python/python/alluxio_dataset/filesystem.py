"""The fsspec file system."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
import os
import re
from datetime import datetime, timezone
from typing import Any, Mapping, Optional

import fsspec
from fsspec.asyn import AsyncFileSystem, get_loop
from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.utils import stringify_path

from . import _native, logs
from .file import AlluxioFile, AlluxioWriter
from .options import Hosts, check_names, document
from .stores import NativeStore, WrappedStore

#: Bytes that are copied at once into a file that the caller has opened.
_COPIED_BYTES = 8 * 1024 * 1024

#: Files that `get` and `put` move at one time, unless ``batch_size`` tells: an upload takes up to 48 MiB
#: of memory.
_TRANSFERS_AT_ONCE = 16

#: How often a callback is told of a transfer that is under way.
_PROGRESS_SECONDS = 0.1

_OWN_PREFIX = re.compile(r"^alluxio(fs)?:(//)?(?=.)")
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")

#: Schemes whose paths are named without it, as their own file systems in fsspec do.
_NAMED_BY_BUCKET = {
    *("s3", "s3a", "gs", "gcs", "oss", "cos", "cosn", "obs", "az", "abfs", "abfss"),
}

#: Schemes that mean one store.
_SAME = {"s3a": "s3", "gcs": "gs", "cosn": "cos", "abfss": "abfs", "az": "abfs", "local": "file"}


class AlluxioFileSystem(AsyncFileSystem):
    """Files of an under-store, read through the workers of an Alluxio cluster.

    >>> fs = AlluxioFileSystem(
    ...     worker_hosts="worker-0,worker-1",
    ...     target_protocol="s3",
    ...     target_options={"endpoint_url": "http://minio:9000", "key": "...", "secret": "..."},
    ...     options={"alluxio.worker.page.store.page.size": "1MB"},
    ... )
    >>> fs.ls("s3://data/train", detail=False)
    ['data/train/data.parquet', 'data/train/images', 'data/train/labels.csv']
    >>> with fs.open("s3://data/train/data.parquet") as file:
    ...     file.read(4)
    b'PAR1'

    What fsspec itself describes:

    >>> fs.mkdir("data/out")
    >>> fs.cp("data/train/labels.csv", "data/out/labels.csv")
    >>> fs.find("data/out"), fs.du("data/out")
    (['data/out/labels.csv'], 19)
    >>> fs.glob("data/train/images/*.jpg")
    ['data/train/images/0.jpg', 'data/train/images/1.jpg']
    >>> fs.rm("data/out", recursive=True)
    >>> fs.exists("data/out")
    False

    Parameters
    ----------
    etcd_hosts, etcd_port:
        Alluxio's etcd, where its workers are found: ``"host1,host2"``, or a list, each with a port of
        its own or ``etcd_port``.
    worker_hosts, worker_http_port:
        A fixed list of workers in place of etcd.
    options:
        Alluxio's properties by their names, such as ``alluxio.worker.page.store.page.size`` and
        ``alluxio.user.consistent.hash.virtual.node.count.per.worker`` (2000 by default, as Alluxio's
        Java client has it), or fields of the configuration such as ``client.memory_limit``. An
        unknown name raises ``ValueError`` with the nearest known one.
    target_protocol, target_options:
        The under-store (``s3``, ``gs``, ``abfs``, ``oss``, ``hdfs``, ``file``, ...) and how to reach it, by
        the options of its file system in fsspec: ``anon``, ``endpoint_url``, ``key``, ``secret``,
        ``token``, ``client_kwargs``, ... A protocol that the client does not speak is used through
        fsspec's own file system, as if given by ``fs``.
    fs:
        An fsspec file system as the under-store, in place of the two above. Names, writes and what the
        workers cannot serve go through it.
    logger:
        A ``logging.Logger``, a path, ``(path, level)`` or ``{"path": ..., "level": ...}``.
    fallback_to_ufs_enabled:
        Whether the store is read where no worker can serve. Without it, names come from the workers
        too, and a read that they cannot serve raises ``ConnectionError``.
    cluster_name:
        The cluster's name in etcd.
    concurrency:
        Requests at one time.
    preload_path:
        A path whose load is submitted when the file system is made.
    test_options:
        ``{"skip_alluxio": True}`` reads the store alone.
    """

    protocol: tuple[str, ...] = ("alluxio", "alluxiofs")
    root_marker = ""
    sep = "/"
    cachable = True

    def __init__(
        self,
        etcd_hosts: Hosts = None,
        worker_hosts: Hosts = None,
        options: Optional[Mapping[str, Any]] = None,
        logger: logs.Logger = None,
        concurrency: int = 64,
        etcd_port: int = 2379,
        worker_http_port: int = 28080,
        preload_path: Optional[str] = None,
        target_protocol: Optional[str] = None,
        target_options: Optional[Mapping[str, Any]] = None,
        fs: Any = None,
        test_options: Optional[Mapping[str, Any]] = None,
        *,
        fallback_to_ufs_enabled: bool = True,
        cluster_name: Optional[str] = None,
        asynchronous: bool = False,
        loop: Any = None,
        batch_size: Optional[int] = None,
        **kwargs: Any,
    ):
        _refuse_unknown(kwargs)
        super().__init__(asynchronous=asynchronous, loop=loop, batch_size=batch_size, **kwargs)
        if (fs is None) == (target_protocol is None):
            raise ValueError(
                "give target_protocol (with target_options), such as 's3', or fs, an fsspec file "
                "system: one of the two, for the store that the workers cache"
            )
        self.logger = logs.start(logger)
        if fs is None and target_protocol not in (*_native.schemes(), "local"):
            fs = fsspec.filesystem(target_protocol, **dict(target_options or {}))
        self.fs = fs
        self.target_protocol = target_protocol or _protocol_of(fs)
        if _uri_scheme(self.target_protocol) in _NAMED_BY_BUCKET:
            # Ray and DuckDB ask by it whether `s3://...` may be read by this object.
            self.protocol = (*type(self).protocol, self.target_protocol)
        self._host = _host_of(self.target_protocol, target_options)
        skips = bool((test_options or {}).get("skip_alluxio"))
        arguments = {
            "target_options": _without_host(self.target_protocol, target_options),
            "etcd_hosts": etcd_hosts,
            "etcd_port": etcd_port,
            "worker_hosts": worker_hosts,
            "worker_http_port": worker_http_port,
            "options": options,
            "cluster_name": cluster_name,
            "concurrency": concurrency,
            "fallback_to_ufs_enabled": fallback_to_ufs_enabled,
        }
        self._store = self._joined(arguments, skips)
        if preload_path is not None:
            self._store.call("submit_load", self._uri(preload_path), "{}")

    def _joined(self, arguments: dict, skips: bool):
        scheme = _uri_scheme(self.target_protocol)
        probe = "file:///probe" if scheme == "file" else f"{scheme}://probe"
        if self.fs is None:
            text = document(**arguments, without_workers=skips)
            return NativeStore(_native.Session(text, probe))
        session = None
        if not skips and scheme in _native.schemes():
            text = document(**arguments, workers_only=True)
            session = _native.Session(text, probe)
        falls_back = arguments["fallback_to_ufs_enabled"]
        if session is None and not falls_back:
            raise ValueError(
                f"no worker can serve {self.target_protocol}://, and fallback_to_ufs_enabled is False"
            )
        return WrappedStore(self.fs, session, falls_back, self.logger)

    # ------------------------------------------------------------------ names

    @classmethod
    def _strip_protocol(cls, path):
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        path = _OWN_PREFIX.sub("", stringify_path(path), count=1)
        if path.startswith("alluxio") and path.split(":")[0] in cls.protocol and path.endswith(":"):
            return ""
        return _stripped(path)

    def unstrip_protocol(self, name: str) -> str:
        """The URL that fsspec opens by this file system, such as ``alluxio://bucket/key``.

        >>> fs.unstrip_protocol("data/train/labels.csv")
        'alluxio://data/train/labels.csv'
        """
        name = _OWN_PREFIX.sub("", stringify_path(name), count=1)
        return f"alluxio://{_stripped(name)}"

    def ufs_uri(self, path: str) -> str:
        """The URI in the under-store, such as ``s3://bucket/key``.

        >>> fs.ufs_uri("data/train/labels.csv")
        's3://data/train/labels.csv'
        """
        return self._uri(path)

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict:
        """``alluxio://s3://bucket/key`` names its store itself."""
        inner = _SCHEME.match(_OWN_PREFIX.sub("", path, count=1))
        return {"target_protocol": inner.group(1)} if inner else {}

    def _uri(self, path: str) -> str:
        path = _OWN_PREFIX.sub("", stringify_path(path), count=1)
        scheme = _uri_scheme(self.target_protocol)
        given = _SCHEME.match(path)
        if given:
            theirs = given.group(1).lower()
            if _SAME.get(theirs, theirs) != _SAME.get(scheme, scheme):
                raise ValueError(
                    f"{path} is not of this file system, whose target_protocol is "
                    f"{self.target_protocol!r}"
                )
            return path
        if scheme == "file":
            return "file://" + os.path.abspath(path)
        if scheme in _NAMED_BY_BUCKET:
            bucket = path.lstrip("/")
            if not bucket:
                raise ValueError("a path begins with a bucket, such as s3://bucket/key")
            return f"{scheme}://{bucket}"
        return f"{scheme}://{self._host}/{path.lstrip('/')}"

    # ------------------------------------------------------------------ what is there

    async def _info(self, path, **kwargs):
        return await self._store.acall("status", self._uri(path))

    def info(self, path, **kwargs):
        """The entry of a file or directory: ``name``, ``size`` in bytes (0 for a directory), ``type``
        (``file`` or ``directory``), ``last_modification_time_ms``, ``mtime`` in seconds and, where the
        store has one, ``ETag``.

        >>> entry = fs.info("s3://data/train/labels.csv")
        >>> entry["name"], entry["size"], entry["type"]
        ('data/train/labels.csv', 19, 'file')
        >>> fs.info("data/train/nothing")
        Traceback (most recent call last):
        FileNotFoundError: [Errno 2] ...
        """
        return self._store.call("status", self._uri(path))

    async def _ls(self, path, detail=True, **kwargs):
        entries = await self._store.acall("ls", self._uri(path))
        return entries if detail else [entry["name"] for entry in entries]

    def ls(self, path, detail=True, **kwargs):
        """What lies directly in a directory, sorted by name: entries as of :meth:`info`, or names.
        ``refresh=True`` asks the store anew.

        >>> fs.ls("data/train/images", detail=False)
        ['data/train/images/0.jpg', 'data/train/images/1.jpg']
        >>> [entry["size"] for entry in fs.ls("data/train/images")]
        [100, 101]
        """
        if kwargs.get("refresh"):
            self.invalidate_cache(path)
        entries = self._store.call("ls", self._uri(path))
        return entries if detail else [entry["name"] for entry in entries]

    def exists(self, path, **kwargs):
        """Whether there is a file or directory."""
        try:
            self.info(path)
            return True
        except (FileNotFoundError, NotADirectoryError):
            return False

    async def _exists(self, path, **kwargs):
        try:
            await self._info(path)
            return True
        except (FileNotFoundError, NotADirectoryError):
            return False

    def isdir(self, path):
        """Whether there is a directory.

        >>> fs.isdir("data/train"), fs.isdir("data/train/labels.csv")
        (True, False)
        """
        try:
            return self.info(path)["type"] == "directory"
        except (FileNotFoundError, NotADirectoryError):
            return False

    def isfile(self, path):
        """Whether there is a file."""
        try:
            return self.info(path)["type"] == "file"
        except (FileNotFoundError, NotADirectoryError):
            return False

    async def _find(self, path, maxdepth=None, withdirs=False, detail=False, prefix="", **kwargs):
        path = self._strip_protocol(path)
        if maxdepth is not None or withdirs:
            found = await super()._find(path, maxdepth=maxdepth, withdirs=withdirs, detail=True)
        else:
            found = await self._files_below(path)
        if prefix:
            start = f"{path.rstrip('/')}/{prefix}"
            found = {name: entry for name, entry in found.items() if name.startswith(start)}
        return found if detail else sorted(found)

    async def _files_below(self, path):
        try:
            entry = await self._info(path)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        if entry["type"] == "file":
            return {entry["name"]: entry}
        files = await self._store.acall("walk", self._uri(path))
        return {entry["name"]: entry for entry in sorted(files, key=lambda entry: entry["name"])}

    async def _du(self, path, total=True, maxdepth=None, withdirs=False, **kwargs):
        found = await self._find(path, maxdepth=maxdepth, withdirs=withdirs, detail=True)
        sizes = {name: entry["size"] for name, entry in found.items()}
        return sum(sizes.values()) if total else sizes

    def modified(self, path):
        """When a file was last modified, with its time zone.

        >>> fs.modified("data/train/labels.csv").tzinfo
        datetime.timezone.utc
        """
        milliseconds = self.info(path).get("last_modification_time_ms")
        if not milliseconds:
            raise NotImplementedError(f"the store tells no time for {path}")
        return datetime.fromtimestamp(milliseconds / 1000, timezone.utc)

    def created(self, path):
        """The same as :meth:`modified`: a store's file is made anew with each write."""
        return self.modified(path)

    def ukey(self, path):
        """A text that differs for every version of a file."""
        entry = self.info(path)
        version = entry.get("ETag") or (entry.get("last_modification_time_ms"), entry["size"])
        return hashlib.sha256(f"{entry['name']} {version}".encode()).hexdigest()

    def checksum(self, path):
        """A number that differs for every version of a file."""
        return int(self.ukey(path)[:16], 16)

    def invalidate_cache(self, path=None):
        """Forgets what is known of a path and of all below it, so that the store is asked anew."""
        if path is not None:
            self._store.call("forget", self._uri(path))

    # ------------------------------------------------------------------ reading

    async def _cat_file(self, path, start=None, end=None, **kwargs):
        uri = self._uri(path)
        if (start or 0) < 0 or (end or 0) < 0:
            size = (await self._info(path))["size"]
            start, end = _from_start(start, size), _from_start(end, size)
        return await self._store.acall("read", uri, start or 0, end)

    def cat_file(self, path, start=None, end=None, **kwargs):
        """The bytes of a file from ``start`` to ``end``, both counted from its end where negative.

        >>> fs.cat_file("data/train/labels.csv", start=-9)
        b'1.jpg,dog'
        """
        uri = self._uri(path)
        if (start or 0) < 0 or (end or 0) < 0:
            size = self.info(path)["size"]
            start, end = _from_start(start, size), _from_start(end, size)
        return self._store.call("read", uri, start or 0, end)

    def cat(self, path, recursive=False, on_error="raise", **kwargs):
        """The bytes of one file, or ``{path: bytes}`` of several, read side by side. ``on_error`` is
        ``raise``, ``return`` (the exception in place of the bytes) or ``omit``.

        >>> sizes = {name: len(image) for name, image in fs.cat("data/train/images/*.jpg").items()}
        >>> sizes
        {'data/train/images/0.jpg': 100, 'data/train/images/1.jpg': 101}
        """
        if isinstance(path, str) and not recursive and not _has_magic(path):
            return self.cat_file(path)
        given = path if isinstance(path, list) else [path]
        if recursive or any(_has_magic(one) for one in given):
            paths = [one for one in self.expand_path(path, recursive=recursive) if self.isfile(one)]
        else:
            paths = [self._strip_protocol(one) for one in given]
        answers = self._store.call("read_ranges", [(self._uri(one), 0, None) for one in paths])
        _raise_first(answers, on_error == "raise")
        return {
            one: answer
            for one, answer in zip(paths, answers)
            if on_error != "omit" or not isinstance(answer, Exception)
        }

    def cat_ranges(self, paths, starts, ends, max_gap=None, on_error="return", **kwargs):
        """The bytes of many ranges, read side by side, each file opened once. ``on_error`` is
        ``return`` or ``raise``.

        >>> fs.cat_ranges(["data/train/data.parquet"] * 2, [0, -4], [4, None])
        [b'PAR1', b'PAR1']
        """
        ranges = self._ranges(paths, starts, ends)
        answers = self._store.call("read_ranges", ranges)
        _raise_first(answers, on_error == "raise")
        return answers

    async def _cat_ranges(
        self, paths, starts, ends, max_gap=None, batch_size=None, on_error="return", **kwargs
    ):
        ranges = self._ranges(paths, starts, ends)
        answers = await self._store.acall("read_ranges", ranges)
        _raise_first(answers, on_error == "raise")
        return answers

    def _ranges(self, paths, starts, ends):
        if not isinstance(paths, list):
            raise TypeError("paths must be a list")
        starts = starts if _is_listed(starts) else [starts] * len(paths)
        ends = ends if _is_listed(ends) else [ends] * len(paths)
        if len(starts) != len(paths) or len(ends) != len(paths):
            raise ValueError("starts and ends must be as many as paths")
        ranges = []
        for path, start, end in zip(paths, starts, ends):
            if (start or 0) < 0 or (end or 0) < 0:
                size = self.info(path)["size"]
                start, end = _from_start(start, size), _from_start(end, size)
            ranges.append((self._uri(path), int(start or 0), None if end is None else int(end)))
        return ranges

    def head(self, path, size=1024, num_of_bytes=None):
        """The first bytes of a file.

        >>> fs.head("data/train/labels.csv", num_of_bytes=5)
        b'0.jpg'
        """
        return self.cat_file(path, end=size if num_of_bytes is None else num_of_bytes)

    def tail(self, path, size=1024, num_of_bytes=None):
        """The last bytes of a file.

        >>> fs.tail("data/train/labels.csv", num_of_bytes=3)
        b'dog'
        """
        size = size if num_of_bytes is None else num_of_bytes
        return self.cat_file(path, start=-size) if size else b""

    def read_bytes(self, path, start=None, end=None, **kwargs):
        """The same as :meth:`cat_file`.

        >>> fs.read_bytes("data/train/labels.csv", start=6, end=9)
        b'cat'
        """
        return self.cat_file(path, start=start, end=end, **kwargs)

    def follow_list(self, paths):
        """Tells the order in which files will be opened, such as that of a shuffled epoch: while one
        is read, the beginning of the next ones is fetched.

        >>> fs.follow_list(["data/train/images/1.jpg", "data/train/images/0.jpg"])
        """
        self._store.call("follow_list", [self._uri(path) for path in paths])

    def _open(
        self,
        path,
        mode="rb",
        block_size=None,
        autocommit=True,
        cache_options=None,
        access_profile=None,
        **kwargs,
    ):
        """Opens a file: ``rb``, ``wb`` (replaces what is there) or ``xb`` (fails where a file is).

        ``block_size`` is the buffer of small reads. ``cache_type`` and ``cache_options`` are taken and
        change nothing: pages and read-ahead are the client's. ``access_profile`` tells it how the file
        will be read: ``adaptive``, ``sequential``, ``random``, ``parquet`` or ``safetensors``.

        >>> with fs.open("data/train/notes.txt", "w") as file:
        ...     _ = file.write("two\\nlines")
        >>> with fs.open("data/train/notes.txt", "rt") as file:
        ...     file.readlines()
        ['two\\n', 'lines']
        """
        if not autocommit:
            raise NotImplementedError(_NO_TRANSACTIONS)
        uri = self._uri(path)
        if mode == "rb":
            reader = self._store.call("open", uri, access_profile)
            kept = {} if access_profile is None else {"access_profile": access_profile}
            return AlluxioFile(self, path, reader, block_size, **kept)
        if mode in ("wb", "xb"):
            return AlluxioWriter(self, path, self._store.call("create", uri, mode == "xb"), mode)
        raise ValueError(
            f"mode {mode!r}: a file is opened with rb, wb or xb; stores cannot append to a file or "
            "change a part of it"
        )

    async def open_async(self, path, mode="rb", **kwargs):
        raise NotImplementedError(
            "streams are not awaited: use _cat_file with start and end, or open() in a thread"
        )

    # ------------------------------------------------------------------ changing

    async def _pipe_file(self, path, value, mode="overwrite", **kwargs):
        await self._store.acall("write", self._uri(path), bytes(value), mode == "create")

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        """Writes a whole file in one step; with ``mode="create"`` it fails where one is.

        >>> fs.pipe_file("data/train/epoch", b"17")
        >>> fs.pipe_file("data/train/epoch", b"18", mode="create")
        Traceback (most recent call last):
        FileExistsError: [Errno 17] ...
        """
        self._store.call("write", self._uri(path), bytes(value), mode == "create")

    def write_bytes(self, path, value, **kwargs):
        """The same as :meth:`pipe_file`.

        >>> fs.write_bytes("data/train/epoch", b"18")
        >>> fs.read_bytes("data/train/epoch")
        b'18'
        """
        self.pipe_file(path, value, **kwargs)

    def touch(self, path, truncate=True, **kwargs):
        """Makes an empty file. One that is there becomes empty, or stays with ``truncate=False``.

        >>> fs.touch("data/train/_SUCCESS")
        >>> fs.info("data/train/_SUCCESS")["size"]
        0
        """
        self._store.call("touch", self._uri(path), truncate)

    async def _mkdir(self, path, create_parents=True, **kwargs):
        await self._make_dir(path, create_parents, exist_ok=False)

    async def _makedirs(self, path, exist_ok=False):
        await self._make_dir(path, create_parents=True, exist_ok=exist_ok)

    async def _make_dir(self, path, create_parents, exist_ok):
        if await self._exists(path):
            if exist_ok and (await self._info(path))["type"] == "directory":
                return
            raise FileExistsError(17, f"mkdir: {self._uri(path)} is there already", str(path))
        parent = self._parent(self._strip_protocol(path))
        if not create_parents and parent and not await self._exists(parent):
            raise FileNotFoundError(2, f"mkdir: {self._uri(parent)} is not there", str(parent))
        await self._store.acall("make_dir", self._uri(path))

    def rmdir(self, path):
        """Removes an empty directory."""
        if not self.isdir(path):
            raise NotADirectoryError(20, f"rmdir: {self._uri(path)} is no directory", str(path))
        self._store.call("remove", self._uri(path), False)

    async def _rm_file(self, path, **kwargs):
        await self._store.acall("remove", self._uri(path), False)

    async def _rm(self, path, recursive=False, maxdepth=None, batch_size=None, **kwargs):
        if maxdepth is not None:
            return await super()._rm(path, recursive, batch_size, maxdepth, **kwargs)
        given = path if isinstance(path, list) else [path]
        paths = []
        for one in given:
            one = self._strip_protocol(one)
            paths += await self._glob(one) if _has_magic(one) else [one]
        if not paths:
            raise FileNotFoundError(2, "rm: nothing is there", str(path))
        for one in paths:
            await self._store.acall("remove", self._uri(one), recursive)

    def rm_file(self, path):
        """Removes one file."""
        self._store.call("remove", self._uri(path), False)

    async def _cp_file(self, path1, path2, **kwargs):
        if (await self._info(path1))["type"] == "directory":
            # Even where a file in it was copied before: a directory that was never made goes with it.
            await self._store.acall("make_dir", self._uri(path2))
        else:
            await self._store.acall("copy", self._uri(path1), self._uri(path2), False)

    def mv(self, path1, path2, recursive=False, maxdepth=None, **kwargs):
        """Moves a file, or with ``recursive`` a directory: into ``path2`` where that is a directory, as
        :meth:`copy` does. In one step where the store has one; a failure leaves the source whole.

        >>> fs.touch("data/train/draft")
        >>> fs.mv("data/train/draft", "data/train/final")
        >>> fs.exists("data/train/draft"), fs.exists("data/train/final")
        (False, True)
        """
        one_to_one = isinstance(path1, str) and isinstance(path2, str) and maxdepth is None
        if not one_to_one or _has_magic(path1):
            super().mv(path1, path2, recursive=recursive, maxdepth=maxdepth, **kwargs)
            return
        source, target = self._strip_protocol(path1), self._strip_protocol(path2)
        if source == target:
            return
        if path2.endswith("/") or self.isdir(target):
            target = f"{target}/{source.rsplit('/', 1)[-1]}"
        self._store.call("rename", self._uri(source), self._uri(target), recursive)

    # ------------------------------------------------------------------ to and from the local disk

    async def _get_file(self, rpath, lpath, callback=DEFAULT_CALLBACK, outfile=None, **kwargs):
        uri = self._uri(rpath)
        if outfile is not None:
            copy = functools.partial(_copy, self._store, uri, outfile, callback)
            await asyncio.get_running_loop().run_in_executor(None, copy)
            return
        try:
            await self._transfer(callback, "download", uri, os.fspath(lpath))
        except IsADirectoryError:
            if (await self._info(rpath))["type"] != "directory":
                raise
            os.makedirs(lpath, exist_ok=True)

    async def _put_file(self, lpath, rpath, mode="overwrite", callback=DEFAULT_CALLBACK, **kwargs):
        if os.path.isdir(lpath):
            await self._makedirs(rpath, exist_ok=True)
            return
        path, uri = os.fspath(lpath), self._uri(rpath)
        await self._transfer(callback, "upload", path, uri, mode == "create")

    async def _transfer(self, callback, method, *args):
        """Awaits a transfer of one file, and tells the callback how far it is."""
        progress = _native.Progress()
        moving = asyncio.ensure_future(self._store.acall(method, *args, progress))
        try:
            while not moving.done():
                await asyncio.wait({moving}, timeout=_PROGRESS_SECONDS)
                if progress.total and callback.size != progress.total:
                    callback.set_size(progress.total)
                if progress.done and callback.value != progress.done:
                    callback.absolute_update(progress.done)
        finally:
            moving.cancel()
        moving.result()
        if not progress.total:
            callback.set_size(0)

    async def _get(self, rpath, lpath, *args, batch_size=None, **kwargs):
        batch_size = batch_size or self.batch_size or _TRANSFERS_AT_ONCE
        await super()._get(rpath, lpath, *args, batch_size=batch_size, **kwargs)

    async def _put(self, lpath, rpath, *args, batch_size=None, **kwargs):
        batch_size = batch_size or self.batch_size or _TRANSFERS_AT_ONCE
        await super()._put(lpath, rpath, *args, batch_size=batch_size, **kwargs)

    def upload(self, lpath, rpath, recursive=False, callback=DEFAULT_CALLBACK, **kwargs):
        """Copies a local file, or with ``recursive`` a directory, to the store; the same as
        :meth:`put`. Each file is compared with what the store has then.

        ``callback`` is told how far it is (``fsspec.callbacks``): of one file by :meth:`put_file` in
        bytes, here in files, each with a child in bytes.

        >>> fs.upload("data/new", "data/train/new", recursive=True)
        >>> fs.cat_file("data/train/new/one.txt")
        b'one'
        """
        return self.put(lpath, rpath, recursive=recursive, callback=callback, **kwargs)

    def download(self, rpath, lpath, recursive=False, callback=DEFAULT_CALLBACK, **kwargs):
        """Copies a file, or with ``recursive`` a directory, to the local disk; the same as
        :meth:`get`. Each file appears when all of it is there and was compared, and has the time of
        its source; one that was cut goes on with the bytes that came. ``callback`` as in
        :meth:`upload`.

        >>> from fsspec.callbacks import Callback
        >>> fs.download("data/train/labels.csv", "data/labels.csv")
        >>> told = Callback()
        >>> fs.get_file("data/train/labels.csv", "data/again.csv", callback=told)
        >>> told.size, told.value
        (19, 19)
        """
        return self.get(rpath, lpath, recursive=recursive, callback=callback, **kwargs)

    # ------------------------------------------------------------------ what a store cannot do

    @property
    def transaction(self):
        raise NotImplementedError(_NO_TRANSACTIONS)

    def start_transaction(self):
        raise NotImplementedError(_NO_TRANSACTIONS)

    def end_transaction(self):
        raise NotImplementedError(_NO_TRANSACTIONS)

    # ------------------------------------------------------------------ the client

    @property
    def loop(self):
        """The loop of this process: a forked child has one of its own."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._loop = None if self.asynchronous else get_loop()
        return self._loop

    def summary(self, path):
        """What the client of a path's bucket did so far: bytes, requests and seconds by source (memory,
        disk, worker, next worker, store), and what fell back and why.

        >>> data = fs.cat_file("data/train/labels.csv")
        >>> sources = fs.summary("data/train")["sources"]
        >>> sum(source["delivered_bytes"] for source in sources) >= len(data)
        True
        """
        return json.loads(self._store.call("summary", self._uri(path)))

    def workers(self, path):
        """The workers that are known now, as URLs.

        >>> len(fs.workers("data/train"))
        2
        """
        return self._store.call("workers", self._uri(path))


_NO_TRANSACTIONS = (
    "transactions are not supported: stores cannot make several files appear at once. Each file that "
    "is written appears whole, when it is closed"
)

_FSSPEC_KWARGS = {"use_listings_cache", "listings_expiry_time", "max_paths", "skip_instance_cache"}


def _copy(store, uri, outfile, callback):
    """Copies a file into one that is open, at the version that is there now."""
    reader = store.call("open", uri)
    callback.set_size(reader.size)
    for start in range(0, reader.size, _COPIED_BYTES):
        callback.relative_update(outfile.write(reader.read(start, _COPIED_BYTES)))


def _refuse_unknown(kwargs):
    known = [name for name in AlluxioFileSystem.__init__.__kwdefaults__ or ()]
    code = AlluxioFileSystem.__init__.__code__
    known += code.co_varnames[1 : code.co_argcount]
    check_names("AlluxioFileSystem", kwargs, {*known, *_FSSPEC_KWARGS})


def _stripped(path):
    """A path without its scheme where its store's file system in fsspec leaves it out."""
    given = _SCHEME.match(path)
    if given and given.group(1).lower() in _NAMED_BY_BUCKET:
        path = path[given.end() :]
    elif path.startswith("file://"):
        path = path[len("file://") :]
    return path.rstrip("/") or ("/" if path.startswith("/") else "")


def _uri_scheme(protocol):
    return {"local": "file"}.get(protocol, protocol)


def _protocol_of(fs):
    protocol = fs.protocol
    return protocol if isinstance(protocol, str) else protocol[0]


def _host_of(protocol, target_options):
    """What stands between scheme and path, for stores that are named by a host."""
    options = dict(target_options or {})
    host = options.get("host", "")
    return f"{host}:{options['port']}" if host and options.get("port") else host


def _without_host(protocol, target_options):
    options = dict(target_options or {})
    if protocol in ("hdfs", "webhdfs", "swebhdfs"):
        options = {name: value for name, value in options.items() if name not in ("host", "port")}
    return options


def _from_start(offset, size):
    if offset is None or offset >= 0:
        return offset
    return max(size + offset, 0)


def _is_listed(value):
    return hasattr(value, "__iter__")


def _has_magic(path):
    return any(character in path for character in "*?[")


def _raise_first(answers, wanted):
    if wanted:
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
