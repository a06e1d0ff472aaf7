"""Records of runs: their schema, the words and metrics that they use, and the Parquet files that store them."""
