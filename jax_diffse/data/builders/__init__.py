"""TFDS builders of pairs of clean and noisy speech, 16 kHz, one channel, 16 bit; a module registers its builder."""
