"""What the command line prints: records and jobs, profiles, snapshots."""
