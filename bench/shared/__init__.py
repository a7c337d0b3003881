"""What the suites have in common; bench/run.py puts it on their path."""
