"""From a request to results: which runs, with which settings, what each depends on, and what it leaves behind.

Searches, exports and Ray are here; tables and figures are made from the results by `hellm_recbole.report`.
"""
