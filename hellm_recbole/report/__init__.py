"""From records to what a reader sees: tables, slices, ablations, figures and the page."""
