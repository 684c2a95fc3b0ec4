"""Where the files that are not Python lie: boards, templates, C kernels and examples."""

from pathlib import Path
from typing import Any, Literal

import jinja2

DataName = Literal["boards", "templates", "runtime_c", "examples"]


def data_dir(name: DataName) -> Path:
    """The folder `name`: in `slm2c/_data/` of a wheel, at the top level of a checkout or an editable install.

    Raises AssertionError if it is missing: the package was then built or copied without its data.
    """
    package = Path(__file__).resolve().parent
    packed = package / "_data"
    path = (packed if packed.is_dir() else package.parent) / name
    assert path.is_dir(), f"{path} is missing; reinstall slm2c"
    return path


def templates(**options: Any) -> jinja2.Environment:
    """templates/, from which all text is made: a name that is not given is an error, and what stands alone in its line
    and is none of the text leaves no line.
    """
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(data_dir("templates")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **options,
    )
