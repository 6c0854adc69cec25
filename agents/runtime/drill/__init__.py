"""The drill: whether a tunnel would be seen now, through each intake."""
