"""Executors: they run a study's requests in this process, in processes of their own, or on a Ray cluster."""
