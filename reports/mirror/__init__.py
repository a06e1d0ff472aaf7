"""Mirror results in MLflow: runs and speeds are copied from Parquet into MLflow's store."""
