"""Training: the loop, its checkpoint, a recipe's run, throughput, and the use of a trained model. Imports no torch."""
