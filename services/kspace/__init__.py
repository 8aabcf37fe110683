"""The k-space file, its geometry and its sampling pattern: what decompress writes and recon reads."""
