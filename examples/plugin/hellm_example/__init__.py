"""An example of a plug-in of hellm-recbole. Importing this package loads nothing, so that `--help` stays fast."""
