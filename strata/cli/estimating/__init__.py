"""What a submission would take: `options.py` has the options, `dry_run.py` asks the service."""
