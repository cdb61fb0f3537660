"""How many images go through a network together."""


def even(count: int, size: int) -> list[slice]:
    """Consecutive parts of nearly equal size that cover ``count`` items.

    Args:
        count: of all items.
        size: most items of a part, at least 1.

    Returns:
        Slices; none is of a single item where there are more, since some networks cannot take one image alone. An odd
        number in parts of 2 ends with a part of 3, and a size of 1 is taken at its word.
    """
    parts = -(-count // size)
    if size == 2 and count > 1:
        parts = count // 2
    return [slice(count * part // parts, count * (part + 1) // parts) for part in range(parts)]
