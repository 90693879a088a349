"""What the file system works on: the client, or the client beside an fsspec file system.

Both have the methods of ``_native.Session``, by URI. :class:`NativeStore` hands them on.
:class:`WrappedStore` is for ``fs=``, an fsspec object as the under-store: it is what is there, so names
and writes are its own; bytes come from the workers where they hold the same version, and through it
where they do not.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
from datetime import datetime
from typing import Any, Callable, Optional


class NativeStore:
    """The client alone."""

    def __init__(self, session: Any):
        self.session = session

    def call(self, method: str, *args: Any) -> Any:
        """Calls a method of the session and waits for it, without the GIL."""
        return getattr(self.session, method)(*args)

    async def acall(self, method: str, *args: Any) -> Any:
        """Calls a method of the session and awaits it; a cancellation ends it."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()

        def done(answer: Any, error: Optional[BaseException]) -> None:
            try:
                loop.call_soon_threadsafe(_settle, future, answer, error)
            except RuntimeError:
                pass  # The loop was closed; nobody waits any more.

        task = getattr(self.session, method)(*args, done=done)
        try:
            return await future
        except asyncio.CancelledError:
            task.cancel()
            raise


def _settle(future: asyncio.Future, answer: Any, error: Optional[BaseException]) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(answer)
    else:
        future.set_exception(error)


class WrappedStore:
    """An fsspec file system, and the workers that cache what it holds.

    The client of ``session`` asks workers alone. It is passed over where it holds another version
    (told by length and, where both know it, by time) or cannot serve.
    """

    def __init__(self, fs: Any, session: Any, falls_back: bool, log: logging.Logger):
        self.fs = fs
        self.session = session
        self.falls_back = falls_back
        self.log = log

    def call(self, method: str, *args: Any) -> Any:
        if method.endswith("_load") or method in ("load_progress", "summary", "workers"):
            return getattr(self.session, method)(*args)
        return getattr(self, method)(*args)

    async def acall(self, method: str, *args: Any) -> Any:
        call = functools.partial(self.call, method, *args)
        return await asyncio.get_running_loop().run_in_executor(None, call)

    def status(self, uri: str) -> dict:
        return self._entry(self.fs.info(uri))

    def ls(self, uri: str) -> list[dict]:
        return sorted(
            (self._entry(entry) for entry in self.fs.ls(uri, detail=True)),
            key=lambda entry: entry["name"],
        )

    def walk(self, uri: str) -> list[dict]:
        return [self._entry(entry) for entry in self.fs.find(uri, detail=True).values()]

    def read(self, uri: str, start: int = 0, end: Optional[int] = None) -> bytes:
        return self._through(
            uri,
            lambda: self._same_version(uri).read(start, _length(start, end)),
            lambda: self.fs.cat_file(uri, start=start, end=end),
        )

    def read_ranges(self, ranges: list) -> list:
        def read(one):
            try:
                return self.read(*one)
            except Exception as error:
                return error

        return [read(one) for one in ranges]

    def open(self, uri: str, access_profile: Optional[str] = None) -> _WrappedReader:
        entry = self.status(uri)
        if entry["type"] == "directory":
            raise IsADirectoryError(21, f"{uri} is a directory; name a file in it", uri)
        return _WrappedReader(self, uri, entry)

    def create(self, uri: str, exclusive: bool = False) -> _WrappedWriter:
        self._refuse_existing(uri, exclusive)
        return _WrappedWriter(self.fs.open(uri, "wb"))

    def write(self, uri: str, data: bytes, exclusive: bool = False) -> None:
        self._refuse_existing(uri, exclusive)
        self.fs.pipe_file(uri, data)

    def make_dir(self, uri: str) -> None:
        self.fs.makedirs(uri, exist_ok=True)

    def remove(self, uri: str, recursive: bool = False) -> None:
        if not recursive and self.fs.isdir(uri):
            self.fs.rmdir(uri)
        else:
            self.fs.rm(uri, recursive=recursive)

    def touch(self, uri: str, truncate: bool = True) -> None:
        if truncate or not self.fs.exists(uri):
            self.fs.touch(uri, truncate=True)

    def copy(self, source: str, target: str, recursive: bool = False) -> None:
        self.fs.cp(source, target, recursive=recursive)

    def rename(self, source: str, target: str, recursive: bool = False) -> None:
        self.fs.mv(source, target, recursive=recursive)

    def download(self, uri: str, path: str, progress: Any) -> None:
        reader = self.open(uri)
        with open(path, "wb") as file:
            try:
                for start in range(0, reader.size, _COPIED_BYTES):
                    file.write(reader.read(start, _COPIED_BYTES))
                    progress.tell(reader.size, file.tell())
            except BaseException:
                os.unlink(path)
                raise

    def upload(self, path: str, uri: str, exclusive: bool, progress: Any) -> None:
        self._refuse_existing(uri, exclusive)
        size = os.path.getsize(path)
        progress.tell(size, 0)
        self.fs.put_file(path, uri)
        progress.tell(size, size)

    def forget(self, uri: str) -> None:
        self.fs.invalidate_cache(self.fs._strip_protocol(uri))

    def _refuse_existing(self, uri: str, exclusive: bool) -> None:
        if exclusive and self.fs.exists(uri):
            raise FileExistsError(17, "create: a file of this name is there already", uri)

    def _entry(self, entry: dict) -> dict:
        """The entry with the time under the name that this package promises, where there is one."""
        modified = next((entry[key] for key in _TIMES if entry.get(key) is not None), None)
        seconds: Any = modified.timestamp() if isinstance(modified, datetime) else modified
        if isinstance(seconds, (int, float)):
            known = {"last_modification_time_ms": int(seconds * 1000), "mtime": float(seconds)}
            return {**entry, **known}
        return dict(entry)

    def _same_version(self, uri: str, expected: Optional[dict] = None) -> Any:
        """The workers' reader of a file, where theirs is the version that the store has."""
        reader = self.session.open(uri)
        cached, stored = reader.info(), expected or self.status(uri)
        # Stores tell whole seconds.
        seconds = [(it.get("last_modification_time_ms") or 0) // 1000 for it in (cached, stored)]
        same_time = 0 in seconds or seconds[0] == seconds[1]
        if cached["size"] != stored["size"] or not same_time:
            raise OSError(116, "the workers hold another version", uri)
        return reader

    def _through(self, uri: str, cached: Callable[[], bytes], stored: Callable[[], bytes]) -> bytes:
        if self.session is None:
            return stored()
        try:
            return cached()
        except (OSError, ValueError) as error:
            if not self.falls_back:
                raise
            self.log.debug("%s is read from the store: %s", uri, error)
            return stored()


#: Bytes of a file that are copied to the local disk at once.
_COPIED_BYTES = 8 * 1024 * 1024

#: Where the file systems of fsspec have the time of a file.
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "created")


def _length(start: int, end: Optional[int]) -> int:
    return 2**62 if end is None else max(end - start, 0)


class _WrappedReader:
    """A file of a wrapped store; the same methods as ``_native.Reader``."""

    def __init__(self, store: WrappedStore, uri: str, entry: dict):
        self.store, self.uri, self.entry = store, uri, entry
        self.size = entry["size"]
        self._cached = None
        self._pid = os.getpid()

    def info(self) -> dict:
        return dict(self.entry)

    def read(self, offset: int, length: int) -> bytes:
        end = min(offset + length, self.size)
        if offset >= end:
            return b""
        return self.store._through(
            self.uri,
            lambda: self._reader().read(offset, end - offset),
            lambda: self.store.fs.cat_file(self.uri, start=offset, end=end),
        )

    def read_into(self, offset: int, view: memoryview) -> int:
        data = self.read(offset, len(view))
        view[: len(data)] = data
        return len(data)

    def _reader(self) -> Any:
        if self._cached is None:
            self._cached = self.store._same_version(self.uri, self.entry)
        return self._cached


class _WrappedWriter:
    """A file of a wrapped store that is written; the same methods as ``_native.Writer``."""

    def __init__(self, file: Any):
        self.file = file

    def write(self, data: bytes) -> None:
        self.file.write(data)

    def finish(self) -> None:
        self.file.close()

    def abort(self) -> None:
        if not self.file.closed and hasattr(self.file, "discard"):
            self.file.discard()
