"""What training reads: samples of snapshots and of other data sets, mixtures, exports."""
