"""The suites, a file `bench_*.py` each, and what they share: lower bounds, requirements, checks, peers."""
