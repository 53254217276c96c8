"""What operators do with a running service, done and counted: upgrades, backups and restores."""
