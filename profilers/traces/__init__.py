"""Saved traces: from a file somebody else wrote to where the time of its device went. No torch, and nothing is trusted."""
