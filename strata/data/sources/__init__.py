"""Sources of training samples: snapshots, conversation files, webdatasets and Hugging Face data sets."""
