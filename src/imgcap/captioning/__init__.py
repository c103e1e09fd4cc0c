"""Images in, captions out: rows, sidecars, resuming, shards."""
