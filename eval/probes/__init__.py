"""What can be read off representations: linear probes and words."""
