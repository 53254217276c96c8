"""The stages, one module each, and the pipelines that run them on micro-batches. They use no queue and no store."""
