"""Tests of strata/profiles."""
