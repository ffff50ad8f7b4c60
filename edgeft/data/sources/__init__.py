"""Where rows come from: a folder tree or a table, both read into a `Table` of columns."""
