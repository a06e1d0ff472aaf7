"""Records: what one run leaves behind, its words and metrics, and the Parquet files that keep it."""
