"""What a run leaves behind: its folder, its card, its place on the Hub, and how several compare."""
