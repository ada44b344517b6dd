"""Backends: base says what one is, registry finds them."""
