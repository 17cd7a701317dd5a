"""The trainer of pib-videogen: one job file in, one report and one exit code out."""
