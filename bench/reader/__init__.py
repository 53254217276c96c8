"""Samples/s of the training reader beside webdataset and datasets: `python -m bench.reader`."""
