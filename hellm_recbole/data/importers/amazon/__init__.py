"""Import the Amazon review data of the McAuley lab: convert the published files to RecBole's atomic tables.

`vintages` describes the published formats, `lines` reads the files line by line, `reviews` and `metadata` read one file
each, and `importer` makes the tables of a category.
"""
