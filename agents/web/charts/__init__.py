"""Charts of the console's pages: inline SVG, drawn on the server, without a script."""
