"""Execution sandboxes for tasks nobody vouches for."""
