"""Many processes read images through one file system object, as training frameworks have them do.

    python processes.py s3://bucket/images
"""

import hashlib
import multiprocessing
import os
import sys

from alluxio_dataset import AlluxioFileSystem


def digest(arguments):
    fs, path = arguments
    return hashlib.sha256(fs.cat_file(path)).hexdigest()


if __name__ == "__main__":
    fs = AlluxioFileSystem(
        worker_hosts=os.environ["ALLUXIO_WORKERS"],
        target_protocol="s3",
        target_options={"endpoint_url": os.environ["S3_ENDPOINT"]},
    )
    paths = fs.find(sys.argv[1])
    # Forked or spawned, each process connects by itself at its first read.
    with multiprocessing.get_context("fork").Pool(4) as pool:
        digests = pool.map(digest, [(fs, path) for path in paths], chunksize=64)
    print("images", len(digests), "different", len(set(digests)))
