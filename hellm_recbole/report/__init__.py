"""The report on finished runs: tables, slices, ablations, figures and the HTML page.

Everything is made from run results, saved ranks and search results. No model is loaded or evaluated here.
"""
