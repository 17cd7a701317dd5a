"""How good is a release in production, and whose fault is it? Checks, alerts, questions to Prometheus, quarantine."""
