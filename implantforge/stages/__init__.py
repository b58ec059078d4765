"""The stages a scan walks through, one file each."""
