r"""Alluxio-cached datasets in Python: an fsspec file system and load jobs, on a Rust client.

>>> import fsspec
>>> fs = fsspec.filesystem(
...     "alluxio",
...     worker_hosts="worker-0,worker-1",
...     target_protocol="s3",
...     target_options={"endpoint_url": "http://minio:9000", "key": "...", "secret": "..."},
... )
>>> fs.ls("s3://data/train/images", detail=False)
['data/train/images/0.jpg', 'data/train/images/1.jpg']
>>> fs.cat_file("data/train/labels.csv")
b'0.jpg,cat\n1.jpg,dog'

Pages come from the worker that the hash ring names, the same that Alluxio's Java client picks; from
the next one where it is down; and from the store where none can serve.
"""

import fsspec as _fsspec

from . import exit as _exit
from ._native import __version__
from .client import AlluxioClient, LoadProgress, LoadState
from .file import AlluxioFile, AlluxioWriter
from .filesystem import AlluxioFileSystem

__all__ = [
    "AlluxioClient",
    "AlluxioFile",
    "AlluxioFileSystem",
    "AlluxioWriter",
    "LoadProgress",
    "LoadState",
    "__version__",
]

# The entry points say the same; this is for where packages are found without their metadata.
_fsspec.register_implementation("alluxio", AlluxioFileSystem, clobber=True)
if "alluxiofs" not in _fsspec.available_protocols():
    _fsspec.register_implementation("alluxiofs", "alluxio_dataset.alluxiofs.AlluxioFileSystem")
