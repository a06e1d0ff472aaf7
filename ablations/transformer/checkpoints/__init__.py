"""Reads checkpoint folders of Hugging Face's transformers: configs, files, and the tensors of each family."""
