"""The stages, one file each, and the pipeline that runs them on micro-batches. No queue, no store."""
