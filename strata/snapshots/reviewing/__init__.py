"""What review needs of snapshots: which rows people are asked about, and the texts that they left."""
