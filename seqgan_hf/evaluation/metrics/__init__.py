"""Text metrics: one pure function a file."""
