"""Show the records of benchmarks as tables in the terminal and as an HTML page."""
