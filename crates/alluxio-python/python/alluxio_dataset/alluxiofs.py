"""What the URL prefix ``alluxiofs://`` leads to.

The published package of that name, where it is installed; this package's file system otherwise.
"""

import importlib.util

if importlib.util.find_spec("alluxiofs") is None:
    from .filesystem import AlluxioFileSystem
else:
    from alluxiofs import AlluxioFileSystem  # type: ignore[no-redef]

__all__ = ["AlluxioFileSystem"]
