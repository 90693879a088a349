"""The published Python SDK of the enterprise worker, against a worker: PORT ROOT-URI."""

import sys
import time

from alluxiofs.client import AlluxioClient
from alluxiofs.core import CPOption, RMOption

port, root = sys.argv[1:3]
client = AlluxioClient(worker_hosts=f"127.0.0.1:{port}")


def is_missing(path):
    try:
        client.get_file_status(path)
    except Exception as error:
        assert "404" in str(error), error
        return True
    return False


# Changes.
assert client.mkdir(f"{root}/sdk")
assert client.touch(f"{root}/sdk/empty")
data = bytes(range(256)) * 1000
assert client.write_chunked(f"{root}/sdk/file", data, chunk_size=10_000)
assert client.cp(f"{root}/sdk/file", f"{root}/sdk/copy", CPOption(recursive=False))
assert client.mv(f"{root}/sdk/copy", f"{root}/sdk/moved")
try:
    client.cp(f"{root}/sdk/file", f"{root}/sdk/moved", CPOption())
except Exception as error:
    assert "Conflict" in str(error), error
else:
    raise AssertionError("a copy replaced a file that it must not")
assert client.cp(f"{root}/sdk/file", f"{root}/sdk/moved", CPOption(forced=True))

# Statuses.
names = [status.ufs_path for status in client.listdir(f"{root}/sdk")]
assert names == [f"{root}/sdk/{name}" for name in ("empty", "file", "moved")], names
status = client.get_file_status(f"{root}/sdk/file")
assert (status.type, status.size) == ("file", len(data)), status

# Bytes.
for name in ("file", "moved"):
    assert client.read_chunked(f"{root}/sdk/{name}", chunk_size=10_000).read() == data
assert client.read_chunked(f"{root}/sdk/empty").read() == b""
assert client.head(f"{root}/sdk/file", 100) == data[:100]
assert client.tail(f"{root}/sdk/file", 100) == data[-100:]

# A load.
assert client.submit_load(f"{root}/sdk")
for _ in range(600):
    state, _ = client.load_progress(f"{root}/sdk")
    if state.name not in ("RUNNING", "VERIFYING"):
        break
    time.sleep(0.1)
assert state.name == "SUCCEEDED", state

# Removals.
try:
    client.rm(f"{root}/sdk", RMOption(remove_alluxio_only=False))
except Exception as error:
    assert "Conflict" in str(error), error
else:
    raise AssertionError("a folder that holds something was removed")
assert client.rm(f"{root}/sdk/file", RMOption(remove_alluxio_only=True))
assert not is_missing(f"{root}/sdk/file")
assert client.rm(f"{root}/sdk", RMOption(recursive=True, remove_alluxio_only=False))
assert is_missing(f"{root}/sdk")
print("all of it works")
