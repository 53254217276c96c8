"""From samples to what a model is given: chat templates, windows of an image, collation."""
