"""What is done with each generated client. They run in the generators' environment, in which Strata is not."""
