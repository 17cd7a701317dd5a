"""The API of pib-videogen: resource types, the contract of the trainer, bundles; depends on pydantic alone."""
