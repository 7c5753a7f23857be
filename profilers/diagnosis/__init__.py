"""What failed first, why, and what to do: read from texts."""
