"""`python -m crossfade.proxy`: the same as the command `crossfade`."""

from .cli import main

main()
