"""The demonstration, and the parts of it that the end-to-end tests and the benchmarks use as well."""
