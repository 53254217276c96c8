"""Tests of what is written: README, documentation pages, the site."""
