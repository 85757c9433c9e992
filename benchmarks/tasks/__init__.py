"""What the commands do after their options are parsed: comparisons, searches, studies, reports, timings."""
