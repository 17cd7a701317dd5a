"""The server of pib-videogen: one release bundle behind Triton, prompt and seed in, mp4 and metadata out."""
