"""Raw files and pictures from the network, checked before they get their names."""
