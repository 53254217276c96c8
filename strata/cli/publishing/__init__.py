"""Commands that show and publish data sets."""
