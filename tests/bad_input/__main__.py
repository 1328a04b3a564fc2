"""Runs the cases of `tests/bad_input/cases.py` and writes docs/bad_input.md.

    python -m tests.bad_input
"""

from tests import conftest  # noqa: F401, I001  before JAX is imported
from tests.bad_input import page, world


def main() -> None:
    with world.open_world() as opened:
        page.PATH.write_text(page.render(opened), encoding='utf-8')


if __name__ == '__main__':
    main()
