"""The MLflow mirror: runs and speeds, copied from Parquet into MLflow's store."""
