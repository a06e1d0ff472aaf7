"""Train models: the loop, its checkpoints, a recipe's run, throughput, and what a trained model is used for."""
