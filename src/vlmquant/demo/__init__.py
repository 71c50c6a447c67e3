"""Every verb on the bundled model, offline, ending with one page."""
