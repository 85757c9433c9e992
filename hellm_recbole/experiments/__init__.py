"""Resolve a request into run configs, execute the runs, and read and write their results.

Hyper-parameter searches, exports and Ray are here. `hellm_recbole.report` makes tables and figures from the results.
"""
