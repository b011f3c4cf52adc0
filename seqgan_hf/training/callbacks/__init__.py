"""What only watches a run: bars, log lines, trackers, warnings, cards, pushes."""
