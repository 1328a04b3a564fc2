"""TFDS builders of clean and noisy pairs, 16 kHz, one channel, 16 bit. Importing a module registers its builder."""
