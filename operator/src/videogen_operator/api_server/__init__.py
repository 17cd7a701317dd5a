"""Everything that talks to the API server: its client, the watched objects, lists, the Lease, events, and writes of status."""
