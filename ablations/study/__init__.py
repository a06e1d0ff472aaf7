"""Studies: a TOML file, its runs, one coordinator that asks, runs, tells and keeps."""
