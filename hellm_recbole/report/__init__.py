"""The report on finished runs: tables, slices, ablations, figures and the HTML page.

`frame` reads the run results and saved ranks of a dataset once. The other modules compute from this frame what a
report shows, or format it; `files` writes everything. No model is loaded or evaluated here.
"""
