"""Commands that keep disks in order."""
