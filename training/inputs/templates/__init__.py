"""Chat templates of model families whose own template does not teach the model to end its answer."""
