"""What is in what, by names alone."""


def lies_in(path: str, place: str) -> bool:
    """Whether `path` is `place` or below it. Both are normalised, and absolute or relative alike;
    the root is ""."""
    return f"{path}/".startswith(f"{place}/")
