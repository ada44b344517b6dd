"""Pure: what a request is granted."""
