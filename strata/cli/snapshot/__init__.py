"""`strata snapshot`: choosing and pinning the rows that training reads. It needs no running service."""
