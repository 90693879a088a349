"""Open files, as Python's own buffered files.

A file that is read is an ``io.BufferedReader``: lines and small reads come from its buffer at the speed
of C, large ones go to the client directly. There is no second cache here: pages and read-ahead are
the client's.
"""

from __future__ import annotations

import io
from typing import Any, Optional

#: Small reads are answered from a buffer of this size. Larger ones would fetch what a reader that
#: jumps about does not want; the pages themselves are in the client's memory.
DEFAULT_BUFFER_BYTES = 128 * 1024
_MIN_BUFFER_BYTES = 4 * 1024
_MAX_BUFFER_BYTES = 16 * 1024 * 1024

#: Bytes that are gathered before they are handed to the client, which sends parts of 8 MiB.
_WRITE_BUFFER_BYTES = 8 * 1024 * 1024


class _Raw(io.RawIOBase):
    """The client's reader with a position."""

    def __init__(self, reader: Any, path: str):
        super().__init__()
        self.reader = reader
        self.name = path
        self.mode = "rb"
        self.position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.reader.size}
        if whence not in base:
            raise ValueError(f"whence must be 0, 1 or 2, and is {whence}")
        position = base[whence] + offset
        if position < 0:
            raise ValueError(f"cannot seek to {position}, before the start of {self.name}")
        self.position = position
        return position

    def tell(self) -> int:
        return self.position

    def readinto(self, buffer) -> int:
        view = memoryview(buffer).cast("B")
        count = self.reader.read_into(self.position, view)
        self.position += count
        return count

    def readall(self) -> bytes:
        data = self.reader.read(self.position, max(self.reader.size - self.position, 0))
        self.position += len(data)
        return data


class AlluxioFile(io.BufferedReader):
    """A file that is read, at the version that was opened.

    >>> with fs.open("s3://data/train/data.parquet") as file:
    ...     _ = file.seek(-4, 2)
    ...     file.read()
    b'PAR1'
    """

    def __init__(self, fs: Any, path: str, reader: Any, block_size: Optional[int] = None, **kwargs):
        size = block_size or DEFAULT_BUFFER_BYTES
        self._buffer_bytes = min(max(size, _MIN_BUFFER_BYTES), _MAX_BUFFER_BYTES)
        super().__init__(_Raw(reader, path), self._buffer_bytes)
        self._reader = reader
        self.fs = fs
        self.path = path
        self.blocksize = self._buffer_bytes
        self.size = reader.size
        self.kwargs = kwargs

    def info(self) -> dict:
        """The entry of the version that is read."""
        return self._reader.info()

    @property
    def details(self) -> dict:
        return self.info()

    @property
    def full_name(self) -> str:
        return self.fs.unstrip_protocol(self.path)

    @property
    def loc(self) -> int:
        return self.tell()

    def read(self, length: Optional[int] = -1) -> bytes:
        """Up to ``length`` bytes; all that are left where it is -1 or None."""
        if length is not None and 0 <= length < self._buffer_bytes:
            return super().read(length)
        self._check_open()
        start = self.tell()
        left = max(self.size - start, 0)
        data = self._reader.read(start, left if length is None or length < 0 else length)
        self.seek(start + len(data))
        return data

    def readinto(self, buffer) -> int:
        """Fills a buffer; fewer bytes only at the end of the file. Returns how many.

        >>> buffer = bytearray(4)
        >>> with fs.open("data/train/data.parquet") as file:
        ...     file.readinto(buffer)
        4
        >>> buffer
        bytearray(b'PAR1')
        """
        view = memoryview(buffer).cast("B")
        if len(view) < self._buffer_bytes:
            return super().readinto(view)
        self._check_open()
        start = self.tell()
        count = self._reader.read_into(start, view)
        self.seek(start + count)
        return count

    def read_at(self, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset``, without moving the position; from any thread.

        >>> fs.open("data/train/labels.csv").read_at(6, 3)
        b'cat'
        """
        self._check_open()
        return self._reader.read(offset, length)

    def readuntil(self, char: bytes = b"\n", blocks: Optional[int] = None) -> bytes:
        """Up to and with the next ``char``, or to the end of the file."""
        start, found = self.tell(), b""
        while block := self.read(blocks or self._buffer_bytes):
            # The mark may lie across two blocks.
            index = (found + block).find(char, max(len(found) - len(char) + 1, 0))
            found += block
            if index >= 0:
                self.seek(start + index + len(char))
                return found[: index + len(char)]
        return found

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file.")

    def __reduce__(self):
        return _reopened, (self.fs, self.path, self._buffer_bytes, self.tell(), self.kwargs)

    def __repr__(self) -> str:
        return f"<AlluxioFile {self.path}>"


def _reopened(fs, path, block_size, position, kwargs) -> AlluxioFile:
    file = fs.open(path, "rb", block_size=block_size, **kwargs)
    file.seek(position)
    return file


class AlluxioWriter(io.RawIOBase):
    """A file that is written. It appears whole when it is closed; after an exception in its ``with``
    block, or :meth:`discard`, what was there before stays.

    >>> with fs.open("s3://data/train/part-0", "wb") as file:
    ...     file.write(b"rows")
    4
    """

    def __init__(self, fs: Any, path: str, writer: Any, mode: str = "wb"):
        super().__init__()
        self.fs = fs
        self.path = path
        self.mode = mode
        self.name = path
        self._writer = writer
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._position = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def write(self, data) -> int:
        """Adds bytes, and returns how many."""
        if self.closed:
            raise ValueError("I/O operation on closed file.")
        data = data if isinstance(data, bytes) else bytes(data)
        self._pending.append(data)
        self._pending_bytes += len(data)
        self._position += len(data)
        if self._pending_bytes >= _WRITE_BUFFER_BYTES:
            self._send()
        return len(data)

    def flush(self, force: bool = False) -> None:
        """Does nothing: a file appears whole, at its close."""

    def commit(self) -> None:
        """Closes the file."""
        self.close()

    def discard(self) -> None:
        """Gives up; what was there before stays."""
        if not self.closed:
            self._pending.clear()
            self._writer.abort()
            super().close()

    def close(self) -> None:
        """Sends what is left and makes the file visible."""
        if self.closed:
            return
        try:
            self._send()
            self._writer.finish()
        except BaseException:
            self._writer.abort()
            raise
        finally:
            super().close()

    def _send(self) -> None:
        data = self._pending[0] if len(self._pending) == 1 else b"".join(self._pending)
        self._pending.clear()
        self._pending_bytes = 0
        if data:
            self._writer.write(data)

    def __exit__(self, kind, value, traceback) -> None:
        if kind is not None:
            self.discard()
        else:
            self.close()

    def __del__(self) -> None:
        # A writer that nobody closed did not come to its end.
        if getattr(self, "_writer", None) is not None and not self.closed:
            self.discard()
