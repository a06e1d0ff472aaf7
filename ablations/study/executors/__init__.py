"""Executors: run requests in this process, in processes of their own, or on a Ray cluster. They know no study."""
