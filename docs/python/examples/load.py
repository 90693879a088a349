"""Load a path into the workers' caches, with a progress bar where somebody sees it.

    python load.py s3://bucket/table
"""

import os
import sys

from alluxio_dataset import AlluxioClient, LoadState

client = AlluxioClient(worker_hosts=os.environ["ALLUXIO_WORKERS"])
state, content = client.load(sys.argv[1], verify=True, bandwidth="500MB")
assert state is LoadState.SUCCEEDED, content["message"]
print("files", content["progress"]["filesDone"], "bytes", content["progress"]["bytesDone"])
