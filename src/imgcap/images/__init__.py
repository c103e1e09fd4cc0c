"""Image files: finding them, reading archives, decoding, metadata."""
