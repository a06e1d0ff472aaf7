"""Run studies: a study's file, its agenda of runs, the tuner, and the coordinator that starts and records runs."""
