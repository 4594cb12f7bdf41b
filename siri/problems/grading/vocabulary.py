"""Lists of words, as the modules beside this one know them."""


def words_of(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())
