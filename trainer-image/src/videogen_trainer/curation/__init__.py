"""Parts of the task Curate: sources, cutting, filters, duplicates, the tally and its page."""
