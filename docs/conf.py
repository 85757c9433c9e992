"""Configuration of the site; `make docs` builds it. What is computed for it is in `_ext/hellm_docs/`."""

import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS.parent), str(DOCS / "_ext")]

import hellm_recbole  # noqa: E402

project = "hellm-recbole"
author = "hellm-recbole contributors"
copyright = "hellm-recbole contributors, Apache-2.0"
release = version = hellm_recbole.__version__

extensions = [
    *("hellm_docs", "myst_nb", "sphinx_copybutton", "sphinx_design"),
    *("sphinx.ext.autodoc", "sphinx.ext.napoleon"),
]
exclude_patterns = ["_ext"]
root_doc = "index"
smartquotes = False  # two dashes are the beginning of an option

# Markdown
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_dmath_allow_space = False
myst_dmath_allow_digits = False
html_math_renderer = "mathml"
myst_heading_anchors = 4
nb_execution_mode = "off"  # the tests run the notebooks; the site shows their stored outputs

# API reference
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
default_role = "code"  # docstrings have Markdown's single backticks
napoleon_use_rtype = False
python_use_unqualified_type_names = True

# Pages
html_theme = "furo"
html_title = "hellm-recbole"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
copybutton_prompt_text = r"\$ |>>> "
copybutton_prompt_is_regexp = True
pygments_style = "default"
pygments_dark_style = "github-dark"
