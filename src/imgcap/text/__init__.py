"""Words: the tokeniser, the vocabulary, tables."""
