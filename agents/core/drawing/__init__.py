"""Parts of small charts as inline SVG. Reports and pages draw with it; colours are classes of the page around."""
