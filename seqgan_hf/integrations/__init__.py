"""Other libraries' engines, driven by what this one has."""
