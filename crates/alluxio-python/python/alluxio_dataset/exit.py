"""The end of the interpreter, where PyArrow has been at work.

PyArrow's threads give files and file systems of Python back a moment after a read has returned. One that
does so while the interpreter is ending aborts the process, after all its work was done: "terminate called
without an active exception", exit code 134 (https://github.com/apache/arrow/issues/39162). It is so with
every file system of fsspec; the faster one ends, the more often it happens.
"""

import atexit
import sys
import time

#: What such a thread takes is far below a millisecond, once it has a core.
_SETTLE_SECONDS = 0.05


@atexit.register
def _let_arrow_give_back() -> None:
    if "pyarrow" in sys.modules:
        time.sleep(_SETTLE_SECONDS)
