"""The video models of pib-videogen, shared by the trainer and the server: networks, noise, sampling, bundles."""
