"""Commands of the command line. They parse options and call the library; models and training live elsewhere."""
