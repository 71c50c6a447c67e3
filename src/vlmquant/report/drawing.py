"""Whether pages and pictures can be made here: they need libraries that the light installation lacks."""

from importlib.util import find_spec

NEEDED = ("matplotlib", "jinja2")


def why_not() -> str | None:
    """Return why no page and no picture can be made here, as the end of a sentence; None where they can."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if not missing:
        return None
    return (
        f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed (pip install 'vlmquant[report]')"
    )
