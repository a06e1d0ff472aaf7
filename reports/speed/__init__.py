"""Speed: the benchmarks' records as tables and as a page."""
