"""Metrics of tokenised captions against tokenised references: BLEU, CIDEr-D and ROUGE-L."""
