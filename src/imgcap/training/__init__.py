"""The prepared folder in, a model folder out."""
