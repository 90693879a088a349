"""webdataset: tar shards, opened by the file system.

    python webdataset_shards.py s3://bucket/shards
"""

import os
import sys

import webdataset

from alluxio_dataset import AlluxioFileSystem

fs = AlluxioFileSystem(
    worker_hosts=os.environ["ALLUXIO_WORKERS"],
    target_protocol="s3",
    target_options={"endpoint_url": os.environ["S3_ENDPOINT"]},
)


def opened(shards):
    """Each shard with its open file, read from the first byte to the last."""
    for shard in shards:
        stream = fs.open(shard["url"], access_profile="sequential")
        yield {"url": shard["url"], "stream": stream}


shards = fs.glob(f"{sys.argv[1]}/*.tar")
samples = webdataset.DataPipeline(
    webdataset.SimpleShardList(shards),
    opened,
    webdataset.tariterators.tar_file_expander,
    webdataset.tariterators.group_by_keys,
)
print("samples", sum(1 for _sample in samples), "shards", len(shards))
